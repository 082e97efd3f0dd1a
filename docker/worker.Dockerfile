# The worker: gRPC on 50051, metrics on 9464. `make images`, or from the repository's root:
#   docker build -f docker/worker.Dockerfile -t tectum-worker .
# DEVICE=cuda takes torch with CUDA from TORCH_INDEX; DEVICE=cpu wants an index with CPU builds;
# install-torch.sh refuses the other kind.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The base image's pip fills the environment from outside, so that none lies in it.
RUN python -m venv --without-pip /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH PIP_PYTHON=/opt/tectum/bin/python
COPY constraints.txt docker/install-torch.sh ./
RUN sh ./install-torch.sh "${DEVICE}" "${TORCH_INDEX}"
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY core core
COPY training training
COPY server server
COPY cli cli
# Of the cli extra, only what the command itself is made of: the rest is the demo's.
RUN pip install --constraint constraints.txt ".[worker]" rich typer

FROM ${PYTHON_IMAGE}
# The cache is all that is written: bundles from elsewhere, chosen numerics, what was compiled. A
# volume on it outlasts the container.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tectum \
    && install -d -o tectum /var/cache/tectum
COPY --from=build /opt/tectum /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    TECTUM_HOST=0.0.0.0 \
    TECTUM_METRICS_HOST=0.0.0.0 \
    XDG_CACHE_HOME=/var/cache
USER 10001
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["tectum", "health"]
ENTRYPOINT ["tectum", "serve"]
