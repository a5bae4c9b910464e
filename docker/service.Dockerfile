# The HTTP API: FastAPI and onnxruntime, without torch. Build from the repository's root:
#   docker build -f docker/service.Dockerfile -t maskloop/service .
#   docker run -p 127.0.0.1:8000:8000 -v maskloop-data:/data --name maskloop maskloop/service
# Every call needs a key. The first start creates one and prints it to the log; this prints it again:
#   docker exec maskloop maskloop keys show
# To supply a key instead: docker run -e MASKLOOP_API_KEY=$(openssl rand -hex 32) ...
FROM docker.io/library/python:3.11-slim-bookworm AS build
# Trust the system's certificates, which may include those of a company's proxy.
ENV UV_SYSTEM_CERTS=true
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir --quiet uv
RUN /uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/maskloop
WORKDIR /src
# Dependencies first, since they change rarely. Versions and hashes come from the lock file.
COPY pyproject.toml requirements.lock ./
RUN /uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/maskloop/bin/python \
    --constraints requirements.lock --requirements pyproject.toml
COPY README.md LICENSE maskloop.py ./
COPY trainer trainer
COPY exporter exporter
COPY service service
RUN /uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/maskloop/bin/python --no-deps .

FROM docker.io/library/python:3.11-slim-bookworm
COPY --from=build /opt/maskloop /opt/maskloop
# A new named volume inherits the owner of this folder.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin maskloop && install -d -o maskloop -g maskloop /data
USER maskloop
WORKDIR /data
ENV PATH=/opt/maskloop/bin:$PATH PYTHONUNBUFFERED=1 MASKLOOP_DATA_DIR=/data MASKLOOP_HOST=0.0.0.0 MASKLOOP_LOG_FORMAT=json
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
