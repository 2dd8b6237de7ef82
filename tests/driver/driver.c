/* NVIDIA's driver without a GPU, as libav loads it: libcuda, libnvcuvid and libnvidia-encode in one file.
 *
 * "Device memory" is the host's. NVENC's packets are a start code, a type and the NV12 samples that the hardware
 * would have read: from the registered address at the registered pitch, chroma behind as many rows as the
 * picture is high. What libav asks for is in the file that FAKE_DRIVER_LOG names, a line for each call that a
 * test looks at. Structures have the fields that are used here, at the places where the driver's interface has
 * them.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(const char *what, long long a, long long b, long long c) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    FILE *file = fopen(getenv("FAKE_DRIVER_LOG"), "a");
    if (file) {
        fprintf(file, "%s %lld %lld %lld\n", what, a, b, c);
        fclose(file);
    }
    pthread_mutex_unlock(&lock);
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

/* ---- libcuda ---- */

static char primary_context; /* its address is the handle */
static int primary_active = -1;
static unsigned primary_flags;
static __thread void *stack[16] = {0};
static __thread int depth = 0; /* stack[depth] is current */

static void start(void) {
    if (primary_active < 0) {
        /* As PyTorch leaves it: active, and without BLOCKING_SYNC. */
        primary_active = number("FAKE_DRIVER_ACTIVE", 0) != 0;
    }
}

int cuInit(unsigned flags) { start(); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "none"); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 9; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 512; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = primary_flags, *active = primary_active;
    return 0;
}
int cuDevicePrimaryCtxSetFlags(int device, unsigned flags) { primary_flags = flags; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    primary_active = 1;
    *context = &primary_context;
    return 0;
}
int cuDevicePrimaryCtxRelease(int device) { return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    *context = stack[++depth] = malloc(1);
    say("context-created", 0, 0, 0);
    return 0;
}
int cuCtxDestroy_v2(void *context) {
    say("context-destroyed", context == &primary_context, 0, 0);
    return 0;
}
int cuCtxPushCurrent_v2(void *context) {
    if (!context) return 201; /* invalid context */
    stack[++depth] = context;
    return 0;
}
int cuCtxPopCurrent_v2(void **context) { *context = stack[depth--]; return 0; }
int cuCtxGetCurrent(void **context) { *context = stack[depth]; return 0; }
int cuCtxSetCurrent(void *context) { stack[depth] = context; return 0; }
int cuStreamCreate(void **stream, unsigned flags) {
    static long long streams = 0;
    *stream = (void *)(++streams * 256);
    say("stream-created", (long long)*stream, flags, 0);
    return stack[depth] ? 0 : 201;
}
int cuStreamSynchronize(void *stream) { return 0; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    *address = (unsigned long long)aligned_alloc(512, (size + 511) / 512 * 512);
    return 0;
}
int cuMemFree_v2(unsigned long long address) { free((void *)address); return 0; }

struct side { size_t x, y; int type; void *host; unsigned long long device; void *array; size_t pitch; };
struct copy { struct side from, to; size_t width, height; };

int cuMemcpy2DAsync_v2(const struct copy *copy, void *stream) {
    const char *from = copy->from.type == 1 ? copy->from.host : (void *)copy->from.device;
    char *to = copy->to.type == 1 ? copy->to.host : (void *)copy->to.device;
    for (size_t row = 0; row < copy->height; row++)
        memcpy(to + row * copy->to.pitch, from + row * copy->from.pitch, copy->width);
    say("copied", (long long)stream, 0, 0);
    return 0;
}
int cuMemcpy2D_v2(const struct copy *copy) { return cuMemcpy2DAsync_v2(copy, NULL); }
int cuGetErrorName(int error, const char **text) { *text = "CUDA_ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }

/* What libav looks up and does not call here. */
#define UNUSED(name) int name(void) { return 801; }
UNUSED(cuCtxSetLimit) UNUSED(cuCtxGetDevice) UNUSED(cuDeviceGetUuid) UNUSED(cuDeviceGetUuid_v2)
UNUSED(cuDeviceGetLuid) UNUSED(cuDeviceGetByPCIBusId) UNUSED(cuDeviceGetPCIBusId) UNUSED(cuDevicePrimaryCtxReset)
UNUSED(cuDriverGetVersion) UNUSED(cuMemAllocPitch_v2) UNUSED(cuMemAllocManaged) UNUSED(cuMemsetD8Async)
UNUSED(cuMemcpy) UNUSED(cuMemcpyAsync) UNUSED(cuMemcpyHtoD_v2) UNUSED(cuMemcpyHtoDAsync_v2)
UNUSED(cuMemcpyDtoH_v2) UNUSED(cuMemcpyDtoHAsync_v2) UNUSED(cuMemcpyDtoD_v2) UNUSED(cuMemcpyDtoDAsync_v2)
UNUSED(cuStreamQuery) UNUSED(cuStreamDestroy_v2) UNUSED(cuStreamAddCallback) UNUSED(cuStreamWaitEvent)
UNUSED(cuEventCreate) UNUSED(cuEventDestroy_v2) UNUSED(cuEventSynchronize) UNUSED(cuEventQuery)
UNUSED(cuEventRecord) UNUSED(cuLaunchKernel) UNUSED(cuLinkCreate) UNUSED(cuLinkAddData) UNUSED(cuLinkComplete)
UNUSED(cuLinkDestroy) UNUSED(cuModuleLoadData) UNUSED(cuModuleUnload) UNUSED(cuModuleGetFunction)
UNUSED(cuModuleGetGlobal) UNUSED(cuTexObjectCreate) UNUSED(cuTexObjectDestroy) UNUSED(cuGLGetDevices_v2)
UNUSED(cuGraphicsGLRegisterImage) UNUSED(cuGraphicsUnregisterResource) UNUSED(cuGraphicsMapResources)
UNUSED(cuGraphicsUnmapResources) UNUSED(cuGraphicsSubResourceGetMappedArray)
UNUSED(cuGraphicsResourceGetMappedPointer_v2) UNUSED(cuImportExternalMemory) UNUSED(cuDestroyExternalMemory)
UNUSED(cuExternalMemoryGetMappedBuffer) UNUSED(cuExternalMemoryGetMappedMipmappedArray)
UNUSED(cuMipmappedArrayGetLevel) UNUSED(cuMipmappedArrayDestroy) UNUSED(cuImportExternalSemaphore)
UNUSED(cuDestroyExternalSemaphore) UNUSED(cuSignalExternalSemaphoresAsync) UNUSED(cuWaitExternalSemaphoresAsync)
UNUSED(cuArray3DCreate_v2) UNUSED(cuArrayCreate_v2) UNUSED(cuArrayDestroy)
UNUSED(cuEGLStreamConsumerDisconnect) UNUSED(cuEGLStreamProducerConnect) UNUSED(cuEGLStreamProducerDisconnect)
UNUSED(cuEGLStreamProducerPresentFrame) UNUSED(cuEGLStreamProducerReturnFrame)

/* ---- libnvcuvid: says what a T4 decodes, H.264 and HEVC and no AV1 ---- */

struct decoder_caps {
    int codec, chroma;
    unsigned depth_minus_8, reserved[3];
    unsigned char supported, engines;
    unsigned short formats;
    unsigned most_width, most_height, most_macroblocks;
    unsigned short least_width, least_height;
};

int cuvidGetDecoderCaps(struct decoder_caps *caps) {
    if (!stack[depth]) return 201;
    say("decoder-caps", caps->codec, caps->chroma, caps->depth_minus_8);
    caps->supported = (caps->codec == 4 && !caps->depth_minus_8) || caps->codec == 8;
    caps->supported = caps->supported && caps->chroma == 1;
    caps->most_width = caps->most_height = 4096;
    caps->most_macroblocks = 65536;
    caps->least_width = caps->least_height = 48;
    return 0;
}

/* ---- libnvidia-encode ---- */

struct guid { uint32_t a; uint16_t b, c; uint8_t d[8]; };
static const struct guid h264 = {0x6bc82762, 0x4e63, 0x4ca4, {0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf}};
enum { INVALID_PARAM = 8, OUT_OF_MEMORY = 10, NEED_MORE_INPUT = 17, GENERIC = 20 };

struct resource { uint8_t *address; uint32_t width, height, pitch; };
struct bitstream { uint8_t *data; uint32_t size; uint64_t pts; int idr; };
struct rate { uint32_t version, mode, qp[3], average, most, vbv, initial_delay, bits, least_qp[3]; };
struct config { uint32_t version; struct guid profile; uint32_t gop; int32_t interval; uint32_t x[3]; struct rate rate; };
struct session { uint32_t width, height; };

static int sessions = 0;
static long pictures = 0;

struct open_params { uint32_t version, type; void *device; };
static int open_session(struct open_params *params, void **encoder) {
    if (sessions >= number("FAKE_DRIVER_SESSIONS", 1000)) return OUT_OF_MEMORY;
    sessions++;
    say("session", params->device == &primary_context, 0, 0);
    *encoder = calloc(1, sizeof(struct session));
    return 0;
}
static int destroy(void *encoder) { sessions--; free(encoder); return 0; }
static int guid_count(void *encoder, uint32_t *count) { *count = 1; return 0; }
static int guids(void *encoder, struct guid *out, uint32_t size, uint32_t *count) {
    out[0] = h264, *count = 1;
    return 0;
}
struct caps { uint32_t version, asked; };
static int caps(void *encoder, struct guid codec, struct caps *caps, int *value) {
    *value = caps->asked == 16 || caps->asked == 17 ? 4096 : 1; /* the largest width and height */
    return 0;
}
static int preset(void *encoder, struct guid codec, struct guid preset, uint32_t tuning, void *config) { return 0; }
struct init {
    uint32_t version; struct guid codec, preset;
    uint32_t width, height, dar[2], rate[2], async, decides, bits, private_size;
    void *private; struct config *config;
};
static int initialise(void *encoder, struct init *init) {
    if (init->width < 145 || init->height < 49) return INVALID_PARAM;
    struct session *session = encoder;
    session->width = init->width, session->height = init->height;
    struct rate *rate = &init->config->rate;
    say("rate", rate->mode, rate->average, rate->most);
    say("vbv", rate->vbv, rate->least_qp[0], rate->bits);
    return 0;
}
struct bitstream_params { uint32_t version, size, heap, reserved; struct bitstream *bitstream; };
static int create_bitstream(void *encoder, struct bitstream_params *params) {
    params->bitstream = calloc(1, sizeof(struct bitstream));
    return 0;
}
static int destroy_bitstream(void *encoder, struct bitstream *bitstream) {
    free(bitstream->data);
    free(bitstream);
    return 0;
}
struct input_params { uint32_t version, width, height, heap, format, reserved; struct resource *input; };
static int create_input(void *encoder, struct input_params *params) {
    struct resource *input = calloc(1, sizeof *input);
    input->width = params->width, input->height = params->height, input->pitch = params->width;
    input->address = calloc(1, (size_t)params->width * params->height * 3 / 2);
    params->input = input;
    return 0;
}
static int destroy_input(void *encoder, struct resource *input) { free(input->address); free(input); return 0; }
struct lock_input { uint32_t version, bits; struct resource *input; void *data; uint32_t pitch; };
static int lock_input(void *encoder, struct lock_input *lock) {
    lock->data = lock->input->address, lock->pitch = lock->input->pitch;
    return 0;
}
struct register_params { uint32_t version, type, width, height, pitch, index; void *address; struct resource *made; };
static int register_resource(void *encoder, struct register_params *params) {
    if (params->pitch % 4) return INVALID_PARAM;
    struct resource *made = calloc(1, sizeof *made);
    made->address = params->address, made->pitch = params->pitch;
    made->width = params->width, made->height = params->height;
    params->made = made;
    say("registered", (long long)params->address, params->pitch, params->height);
    return 0;
}
static int forget_resource(void *encoder, struct resource *resource) { free(resource); return 0; }
struct map_params { uint32_t version, index; void *input; struct resource *made, *mapped; uint32_t format; };
static int map(void *encoder, struct map_params *params) { params->mapped = params->made; params->format = 1; return 0; }
struct picture {
    uint32_t version, width, height, pitch, flags, index;
    uint64_t pts, duration;
    struct resource *input; struct bitstream *output;
};
static int encode(void *encoder, struct picture *picture) {
    if (picture->flags & 8) return 0; /* the end */
    if (pictures++ == number("FAKE_DRIVER_FAILS_AT", -1)) return GENERIC;
    struct resource *input = picture->input;
    struct bitstream *out = picture->output;
    uint32_t width = ((struct session *)encoder)->width, height = ((struct session *)encoder)->height;
    out->size = 5 + width * height * 3 / 2;
    uint8_t *to = out->data = realloc(out->data, out->size);
    out->idr = (picture->flags & 2) != 0;
    out->pts = picture->pts;
    memcpy(to, out->idr ? "\0\0\0\1\x65" : "\0\0\0\1\x41", 5);
    to += 5;
    for (uint32_t row = 0; row < height; row++, to += width)
        memcpy(to, input->address + (size_t)row * input->pitch, width);
    for (uint32_t row = 0; row < height / 2; row++, to += width)
        memcpy(to, input->address + (size_t)(input->height + row) * input->pitch, width);
    return 0;
}
struct lock {
    uint32_t version, bits; struct bitstream *output; uint32_t *offsets;
    uint32_t index, status, slices, size; uint64_t pts, duration; void *data; uint32_t type, structure, qp;
};
static int lock_bitstream(void *encoder, struct lock *lock) {
    lock->data = lock->output->data, lock->size = lock->output->size, lock->pts = lock->output->pts;
    lock->type = lock->output->idr ? 3 : 0, lock->structure = 1, lock->qp = 20, lock->slices = 1;
    return 0;
}
static const char *last_error(void *encoder) { return "the driver says so"; }
static int io_streams(void *encoder, void **in, void **out) {
    say("io-stream", (long long)*in, (long long)*out, 0);
    return 0;
}
static int nothing(void) { return 0; }

int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) { *version = 0xffff; return 0; }
int NvEncodeAPICreateInstance(void **list) {
    void **function = list + 1; /* behind version and a reserved word, in the interface's order */
    for (int i = 0; i < 42; i++) function[i] = nothing;
    function[1] = guid_count, function[4] = guids, function[7] = caps, function[11] = initialise;
    function[12] = create_input, function[13] = destroy_input, function[14] = create_bitstream;
    function[15] = destroy_bitstream, function[16] = encode, function[17] = lock_bitstream;
    function[19] = lock_input, function[25] = map, function[27] = destroy, function[29] = open_session;
    function[30] = register_resource, function[31] = forget_resource, function[37] = last_error;
    function[38] = io_streams, function[39] = preset;
    return 0;
}
