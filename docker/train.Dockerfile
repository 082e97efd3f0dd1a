# Training. Build from the repository's root:
#   docker build -f docker/train.Dockerfile -t tectum-train .
#   docker run -v $PWD/data:/tectum/data -v $PWD/runs:/tectum/runs tectum-train tectum-tiny
# DEVICE=cuda takes torch with CUDA from TORCH_INDEX; DEVICE=cpu wants an index with CPU builds.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH
COPY constraints.txt docker/install-torch.sh ./
RUN sh ./install-torch.sh "${DEVICE}" "${TORCH_INDEX}"
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY core core
COPY training training
COPY server server
COPY cli cli
RUN pip install --constraint constraints.txt ".[train,cli]"

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tectum \
    && mkdir -p /tectum && chown 10001 /tectum
COPY --from=build /opt/tectum /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    XDG_CACHE_HOME=/tectum/cache
WORKDIR /tectum
USER 10001
HEALTHCHECK NONE
ENTRYPOINT ["tectum", "train"]
