# The training worker: Celery, trainer and exporter, with torch. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t maskloop/worker .
FROM docker.io/library/python:3.11-slim-bookworm AS build
# Trust the system's certificates, which may include those of a company's proxy.
ENV UV_SYSTEM_CERTS=true
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir --quiet uv
RUN /uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/maskloop
WORKDIR /src
# Dependencies first, since they change rarely: torch and its CUDA libraries are gigabytes.
COPY pyproject.toml requirements.lock ./
RUN /uv/bin/uv pip install --quiet --no-cache --python /opt/maskloop/bin/python \
    --constraints requirements.lock --requirements pyproject.toml --extra trainer --extra exporter
COPY README.md LICENSE maskloop.py ./
COPY trainer trainer
COPY exporter exporter
COPY service service
RUN /uv/bin/uv pip install --quiet --no-cache --python /opt/maskloop/bin/python --no-deps .

FROM docker.io/library/python:3.11-slim-bookworm
COPY --from=build /opt/maskloop /opt/maskloop
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin maskloop && install -d -o maskloop -g maskloop /data
USER maskloop
WORKDIR /data
# Writable folders for Hugging Face downloads and compiled kernels.
ENV PATH=/opt/maskloop/bin:$PATH PYTHONUNBUFFERED=1 MASKLOOP_DATA_DIR=/data MASKLOOP_LOG_FORMAT=json \
    HOME=/tmp HF_HOME=/data/cache/huggingface
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "service"]
CMD ["worker"]
