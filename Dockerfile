# Two images of the service, `gpu` (the default) and `cpu`; docs/deployment.md explains them.
#   docker build --target gpu --tag sdpose:gpu .
#   docker build --target cpu --tag sdpose:cpu .
#
# Both stand on plain Python: PyTorch's wheels bring their own CUDA libraries, so a CUDA base would
# carry them a second time (docs/decisions/0004-images.md, which also has the way to a CUDA base).
# To pin the base by digest as well:
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:<64 hex digits>
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS tools
# Package indexes of your own, where you have some; unset, pip takes its default.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_DEFAULT_TIMEOUT=180
# For `strip`, in the packages' stages only: the images are made of what these stages leave.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/trim.sh /tmp/trim.sh
# Filled from outside by this stage's pip, so the images get an environment without a pip.
RUN python -m venv --without-pip /opt/venv

FROM tools AS packages-cpu
# PyTorch's own index of CPU builds. Empty: the indexes above have one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY deploy/requirements-cpu.lock /tmp/requirements.lock
# PyTorch's default build for Linux does not load without CUDA libraries, which this image leaves
# out: tried in the same step, so that no such layer is kept.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement /tmp/requirements.lock \
    && sh /tmp/trim.sh /opt/venv/lib/python3.11/site-packages cpu \
    && { YOLO_OFFLINE=true /opt/venv/bin/python -c "import torch, ultralytics.nn.tasks" \
        || { echo "for the cpu target TORCH_INDEX must have PyTorch's CPU build"; exit 1; }; }

FROM tools AS packages-gpu
COPY deploy/requirements-gpu.lock /tmp/requirements.lock
# It must be the CUDA build that an index gave, and load; neither needs a GPU or a driver.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps \
        --requirement /tmp/requirements.lock \
    && sh /tmp/trim.sh /opt/venv/lib/python3.11/site-packages gpu \
    && { YOLO_OFFLINE=true /opt/venv/bin/python -c "import sys, torch, ultralytics.nn.tasks; \
            sys.exit(torch.version.cuda is None)" \
        || { echo "for the gpu target: an index with PyTorch's CUDA build"; exit 1; }; }

# What is in each image, by name, version and licence (CycloneDX). Of the system below it:
# `docker buildx build --sbom=true`.
FROM tools AS parts
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/sbom && /opt/sbom/bin/pip install cyclonedx-bom==7.5.0

FROM parts AS parts-cpu
COPY --from=packages-cpu /opt/venv /opt/venv
RUN /opt/sbom/bin/cyclonedx-py environment /opt/venv/bin/python --output-file /sbom.cdx.json

FROM parts AS parts-gpu
COPY --from=packages-gpu /opt/venv /opt/venv
RUN /opt/sbom/bin/cyclonedx-py environment /opt/venv/bin/python --output-file /sbom.cdx.json

# Our own code and weights apart from the packages: a change of code makes a layer of megabytes.
FROM tools AS app
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY client client/
COPY sdpose_core sdpose_core/
COPY service service/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /wheels . \
    && python -m pip --python /opt/venv/bin/python install --no-deps --no-index \
        --prefix /opt/sdpose /wheels/*.whl

# Converts the embedded networks for OpenVINO now, so that a start neither computes nor writes them.
# The detector in fp32 by name: `auto` may choose int8, which needs no conversion. The student for
# every kind of processor, since the image may run on another one than it was built on.
FROM packages-cpu AS converted
COPY --from=app /opt/sdpose /opt/sdpose
ENV PYTHONPATH=/opt/sdpose/lib/python3.11/site-packages XDG_CACHE_HOME=/opt/cache
RUN /opt/venv/bin/python -c "\
from sdpose_core.hardware.backends.openvino import fill_cache; \
from sdpose_core.checkpoints import DEFAULT_STUDENT, load_student; \
from sdpose_core.detector.load import load_detector; \
load_detector(device='cpu', precision='fp32'); \
fill_cache(load_student(DEFAULT_STUDENT))"

FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="sdpose-service" \
    org.opencontainers.image.description="Real-time human pose over REST and gRPC" \
    org.opencontainers.image.licenses="AGPL-3.0-or-later"
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sdpose
COPY deploy/healthcheck.py /opt/healthcheck.py
# HOME and the library's settings folder are in /tmp, the only place that need be writable.
ENV PATH=/opt/sdpose/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/sdpose/lib/python3.11/site-packages \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    YOLO_CONFIG_DIR=/tmp/ultralytics \
    MPLCONFIGDIR=/tmp/matplotlib \
    SDPOSE_HOST=0.0.0.0
WORKDIR /tmp
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "/opt/healthcheck.py"]
USER 10001:10001
ENTRYPOINT ["sdpose"]
CMD ["serve"]

FROM runtime AS cpu
ENV SDPOSE_DEVICE=cpu XDG_CACHE_HOME=/opt/cache
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --from=converted /opt/cache /opt/cache
COPY --from=parts-cpu /sbom.cdx.json /opt/sbom.cdx.json
COPY --from=app /opt/sdpose /opt/sdpose

FROM runtime AS gpu
# With the device named, a host whose GPU is not passed through fails at the start and says so. A
# driver too old for the CUDA of the package list is refused by the container toolkit, by name.
ENV SDPOSE_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=parts-gpu /sbom.cdx.json /opt/sbom.cdx.json
COPY --from=app /opt/sdpose /opt/sdpose
