# The gateway: REST on 8000. `make images`, or from the repository's root:
#   docker build -f docker/gateway.Dockerfile -t tectum-gateway .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The base image's pip fills the environment from outside, so that none lies in it.
RUN python -m venv --without-pip /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH PIP_PYTHON=/opt/tectum/bin/python
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY client client
COPY core core
COPY training training
COPY server server
COPY cli cli
# Of the cli extra, only what the command itself is made of: the rest is the demo's.
RUN pip install --constraint constraints.txt ".[gateway]" rich typer

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tectum
COPY --from=build /opt/tectum /opt/tectum
ENV PATH=/opt/tectum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TECTUM_GATEWAY_HOST=0.0.0.0
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["tectum", "health", "--gateway", "127.0.0.1:8000"]
ENTRYPOINT ["tectum", "gateway"]
