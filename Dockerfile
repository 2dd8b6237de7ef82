# The service for machines without a GPU. Without arguments it serves the embedded demo on port 8080:
#
#   docker build -t livesr . && docker run --network host livesr
#
# It lets in whoever has the admin token, which its first start prints in the page's address; a new container makes a
# new one, unless /var/lib/livesr is a volume. Tokens of your own ([auth] in the settings) take its place.
#
# For machines with NVIDIA GPUs, their driver and NVIDIA's container toolkit:
#
#   docker build -t livesr:gpu --target gpu .
#   docker run --network host --gpus all -v livesr-artifacts:/var/cache/livesr livesr:gpu
#
# Viewers' media is UDP on ports of the system's choice, which no list of published ports can name: hence the
# host's network (docs/ports.md has the other way). With your own settings: docker run … -v ./livesr.toml:/etc/livesr/livesr.toml:ro livesr
ARG BASE=python:3.11-slim-bookworm
ARG NODE=node:22-bookworm-slim

FROM ${NODE} AS page
WORKDIR /page
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/livesr
# What livesr needs changes less often than livesr: installed first, it stays in the build's cache.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/livesr/bin/pip install --no-cache-dir -c constraints.txt .
COPY engine engine
COPY server server
COPY training training
COPY loadtest loadtest
COPY --from=page /page/node_modules/hls.js/dist/hls.light.min.mjs server/gateway/web/vendor/hls.mjs
RUN /opt/livesr/bin/pip install --no-cache-dir --no-deps --force-reinstall .

# PyTorch's and TensorRT's packages bring CUDA's libraries along; the toolkit adds the driver's to the container.
# Not built yet: TensorRT's packages could not be had where this was written.
FROM build AS build-gpu
RUN /opt/livesr/bin/pip install --no-cache-dir ".[gpu]"

FROM ${BASE} AS gpu
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends libsrt1.5-openssl \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin livesr \
    && install --directory --owner=livesr --group=livesr /var/cache/livesr /var/lib/livesr
COPY --from=build-gpu /opt/livesr /opt/livesr
COPY deploy/demo.toml /etc/livesr/livesr.toml
# "video" is NVDEC and NVENC.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    LIVESR_ARTIFACTS=/var/cache/livesr/artifacts \
    PATH=/opt/livesr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# TensorRT engines belong to one kind of GPU, so the image has none. A stream builds its own at its first start and
# is upscaled by PyTorch for those minutes; this builds them beforehand, for sources of every size:
#
#   docker run --gpus all -v livesr-artifacts:/var/cache/livesr livesr:gpu build --all
VOLUME /var/cache/livesr
USER 1000
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["livesr"]
CMD ["serve", "--config", "/etc/livesr/livesr.toml", "--host", "0.0.0.0", "--first-token", "/var/lib/livesr/first-token"]

# The last stage is what is built where no target is named.
FROM ${BASE} AS cpu
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends libsrt1.5-openssl \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin livesr \
    && install --directory --owner=livesr --group=livesr /var/lib/livesr
COPY --from=build /opt/livesr /opt/livesr
COPY deploy/demo.toml /etc/livesr/livesr.toml
ENV PATH=/opt/livesr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["livesr"]
CMD ["serve", "--config", "/etc/livesr/livesr.toml", "--host", "0.0.0.0", "--first-token", "/var/lib/livesr/first-token"]
