# The service for machines without a GPU. Without arguments it serves the embedded demo on port 8080:
#
#   make image && docker run --network host --read-only --tmpfs /tmp --cap-drop all livesr:local
#
# It lets in whoever has the admin token, which its first start prints in the page's address; a new container makes a
# new one, unless /var/lib/livesr is a named volume. Tokens of your own ([auth] in the settings) take its place.
#
# For machines with NVIDIA GPUs, their driver and NVIDIA's container toolkit:
#
#   make image TARGET=gpu
#   docker run --network host --gpus all -v livesr-artifacts:/var/cache/livesr livesr:local-gpu
#
# Viewers' media is UDP on ports of the system's choice, which no list of published ports can name: hence the
# host's network (docs/ports.md has the other way). With your own settings: docker run … -v ./livesr.toml:/etc/livesr/livesr.toml:ro

# The digests of the official images as published in September 2026. To take a newer one:
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
ARG BASE=docker.io/library/python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG NODE=docker.io/library/node:22.23.3-bookworm-slim@sha256:43ac6c60b8f89723f746e8a92ce91abd5017e627ce1ddfe4238355d3a30b772c

FROM ${NODE} AS page
WORKDIR /page
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM ${BASE} AS build
WORKDIR /src
RUN apt-get update \
    && apt-get install --yes --no-install-recommends "binutils=2.40-*" \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/livesr
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What livesr needs changes less often than livesr: installed first, it stays in the build's cache.
COPY pyproject.toml constraints.txt README.md LICENSE ./
# "cluster" for the machines of a Ray cluster (docs/cluster.md).
ARG EXTRAS=
RUN /opt/livesr/bin/pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"
COPY engine engine
COPY server server
COPY training training
COPY loadtest loadtest
COPY --from=page /page/node_modules/hls.js/dist/hls.light.min.mjs server/gateway/web/vendor/hls.mjs
RUN /opt/livesr/bin/pip install --no-deps --force-reinstall .

# A quarter of it is never loaded: OpenVINO's plugins for Intel's GPUs and NPUs and its readers of foreign models,
# NumPy's Fortran, headers, tests, debugging symbols (not those in *.libs, which strip would break), pip at last.
# Bytecode is made here and trusted at run time: the root is read-only there, and each start would compile everything.
FROM build AS build-cpu
WORKDIR /opt/livesr/lib/python3.11/site-packages
RUN rm -rf openvino/include openvino/tools openvino/torch openvino/libs/cache.json \
    openvino/libs/libopenvino_intel_gpu_plugin.so openvino/libs/libopenvino_intel_npu_plugin.so \
    openvino/libs/libopenvino_onnx_* openvino/libs/libopenvino_tensorflow_* openvino/libs/libopenvino_pytorch_* \
    openvino/libs/libopenvino_paddle_* openvino/libs/libopenvino_gguf_* openvino/libs/libopenvino_jax_* \
    openvino/frontend/onnx openvino/frontend/tensorflow openvino/frontend/pytorch \
    openvino/frontend/paddle openvino/frontend/jax numpy/distutils numpy/f2py \
    pip pip-* setuptools setuptools-* pkg_resources _distutils_hack distutils-precedence.pth /opt/livesr/bin/pip* \
    && find . -depth -type d -name tests -exec rm -rf {} + \
    && find . -name "*.pyi" -delete \
    && find . -name "*.so" -not -path "*libs/*" -exec strip --strip-unneeded {} + \
    && /opt/livesr/bin/python -m compileall -q --invalidation-mode unchecked-hash .

# PyTorch's and TensorRT's packages bring CUDA's libraries along; the toolkit adds the driver's to the container.
# Not built yet: TensorRT's packages could not be had where this was written.
FROM build AS build-gpu
RUN /opt/livesr/bin/pip install ".[gpu]" \
    && /opt/livesr/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/livesr/lib

# What both images have but for what is installed. tini is PID 1: it passes signals on to livesr, whose workers then
# drain, and reaps what livesr's children leave behind.
FROM ${BASE} AS service
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="livesr" \
    org.opencontainers.image.description="Live video super-resolution: any live source in, WebRTC and HLS out" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE}"
# libsrt is what SRT sources come by.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends "libsrt1.5-openssl=1.5.*" "tini=0.19.*" \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
    && useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin livesr \
    && install --directory --owner=livesr --group=livesr /var/cache/livesr /var/lib/livesr
COPY deploy/image.toml /etc/livesr/livesr.toml
ENV LIVESR_ARTIFACTS=/var/cache/livesr/artifacts \
    LIVESR_SERVER__URL_FILE=/var/lib/livesr/url \
    PATH=/opt/livesr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080
# The service writes to that file where it listens, whatever its settings and its command line are.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(open(os.environ['LIVESR_SERVER__URL_FILE']).read() + 'healthz', timeout=4)"]
ENTRYPOINT ["tini", "--", "livesr"]
CMD ["serve", "--config", "/etc/livesr/livesr.toml", "--host", "0.0.0.0", "--first-token", "/var/lib/livesr/first-token"]

FROM service AS gpu
COPY --from=build-gpu /opt/livesr /opt/livesr
# "video" is NVDEC and NVENC.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# TensorRT engines belong to one kind of GPU, so the image has none. A stream builds its own at its first start, into
# the volume, and is upscaled by PyTorch for those minutes. Beforehand, for sources of every size:
#
#   docker run --gpus all -v livesr-artifacts:/var/cache/livesr livesr:local-gpu build --all
#
# or, where the builder itself has the GPU of the machines that the image is for, --build-arg ENGINES=build.
ARG ENGINES=first-start
USER 1000
RUN if [ "$ENGINES" = build ]; then livesr build --all; fi
VOLUME ["/var/cache/livesr", "/var/lib/livesr"]

# The last stage is what is built where no target is named.
FROM service AS cpu
COPY --from=build-cpu /opt/livesr /opt/livesr
USER 1000
VOLUME ["/var/cache/livesr", "/var/lib/livesr"]
