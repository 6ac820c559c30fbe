# `fcos serve` in a container, from Docker Hub, Debian's and Python's registries alone. In the root of a checkout:
#   docker build -f projects_tools/serve.Dockerfile -t fcos-serve .
#   docker run --init --rm -p 127.0.0.1:8000:8000 -v "$PWD/output/mine:/models:ro" fcos-serve --weights /models/model_best.pth
FROM python:3.12-slim-bookworm AS build
RUN pip install --no-cache-dir "uv>=0.9,<1"
WORKDIR /app
ENV UV_PROJECT_ENVIRONMENT=/app/.venv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
# What changes seldom first, so that a change of the package does not fetch PyTorch anew.
COPY pyproject.toml README.md LICENSE ./
RUN uv sync --no-default-groups --extra detectron2 --extra serve --no-install-project
COPY configs configs
COPY fcos_d2 fcos_d2
RUN uv sync --no-default-groups --extra detectron2 --extra serve --no-editable

FROM python:3.12-slim-bookworm
# What opencv-python loads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 fcos
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/fcos
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fcos", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD []
