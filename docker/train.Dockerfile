# Training. `make images`, or from the repository's root:
#   docker build -f docker/train.Dockerfile -t tectum-train .
#   docker run --user $(id -u) -v $PWD/data:/tectum/data -v $PWD/runs:/tectum/runs \
#       tectum-train tectum-tiny
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
RUN pip install --constraint constraints.txt ".[train]" rich typer

FROM ${PYTHON_IMAGE}
# Whoever it runs as may write its cache of decoded frames, and runs, in the working folder.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tectum \
    && install --directory --mode 1777 /tectum
COPY --from=build /opt/tectum /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HOME=/tectum
WORKDIR /tectum
USER 10001
HEALTHCHECK NONE
ENTRYPOINT ["tectum", "train"]
