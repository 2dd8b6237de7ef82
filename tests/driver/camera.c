/* A camera behind Video4Linux's ioctls, for LD_PRELOAD: whatever device is opened, YUYV of 160x90 or 320x180, each
 * picture one step brighter. CAMERA_FRAMES: after so many it is unplugged. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 4
#define APART (1 << 20) /* of pages, and of a picture */
static unsigned width = 320, height = 180, fps = 10, number, queued[BUFFERS], waiting, taken;
static void *pictures[BUFFERS];

static size_t size(void) { return (size_t)width * height * 2; }

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "mmap");
    if (fd < 0 || length != size() || !(flags & MAP_SHARED) || offset / APART >= BUFFERS)
        return real(at, length, protection, flags, fd, offset);
    return pictures[offset / APART] = real(at, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, length, protection, flags, fd, offset);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

static int camera(unsigned long request, void *argument)
{
    struct v4l2_format *format = argument;
    struct v4l2_streamparm *parameters = argument;
    struct v4l2_buffer *buffer = argument;
    const char *most = getenv("CAMERA_FRAMES");

    switch (request) {
    case VIDIOC_QUERYCAP:
        memset(argument, 0, sizeof(struct v4l2_capability));
        ((struct v4l2_capability *)argument)->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    case VIDIOC_G_INPUT:
        *(int *)argument = 0;
        return 0;
    case VIDIOC_ENUMINPUT:
        return 0;
    case VIDIOC_G_FMT:
        format->fmt.pix.width = width;
        format->fmt.pix.height = height;
        return 0;
    case VIDIOC_S_FMT:
        if (format->fmt.pix.pixelformat != V4L2_PIX_FMT_YUYV)
            return fail(EINVAL);
        width = format->fmt.pix.width == 160 ? 160 : 320; /* the next one that it has */
        height = width * 9 / 16;
        format->fmt.pix.width = width;
        format->fmt.pix.height = height;
        format->fmt.pix.bytesperline = width * 2;
        format->fmt.pix.sizeimage = size();
        format->fmt.pix.field = V4L2_FIELD_NONE;
        return 0;
    case VIDIOC_S_PARM:
        fps = parameters->parm.capture.timeperframe.denominator / parameters->parm.capture.timeperframe.numerator;
        /* fall through */
    case VIDIOC_G_PARM:
        parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parameters->parm.capture.timeperframe.numerator = 1;
        parameters->parm.capture.timeperframe.denominator = fps;
        return 0;
    case VIDIOC_REQBUFS:
        ((struct v4l2_requestbuffers *)argument)->count = BUFFERS;
        return 0;
    case VIDIOC_QUERYBUF:
        buffer->length = size();
        buffer->m.offset = buffer->index * APART;
        return 0;
    case VIDIOC_QBUF:
        queued[waiting++ % BUFFERS] = buffer->index;
        return 0;
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        return 0;
    case VIDIOC_DQBUF:
        if (most && number >= (unsigned)atoi(most))
            return fail(ENODEV);
        usleep(1000000 / fps);
        buffer->index = queued[taken++ % BUFFERS];
        buffer->bytesused = size();
        buffer->flags = 0;
        for (size_t at = 0; at < size(); at++)
            ((unsigned char *)pictures[buffer->index])[at] = at % 2 ? 128 : 40 + number;
        number++;
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        buffer->timestamp.tv_sec = now.tv_sec;
        buffer->timestamp.tv_usec = now.tv_nsec / 1000;
        return 0;
    }
    return fail(ENOTTY);
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, void *);
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (_IOC_TYPE(request) == 'V')
        return camera(request, argument);
    if (!real)
        real = dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, argument);
}
