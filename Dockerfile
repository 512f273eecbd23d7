# The service in a container: not root, and with a read-only file system but for /data. See docs/service.md.
#
#   docker build -t pushforward .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v pushforward-data:/data -v ./guards:/guards:ro -v ./tokens:/run/secrets/tokens:ro -p 8000:8000 pushforward \
#     /guards/orders.safetensors
FROM python:3.11-slim AS build
WORKDIR /src
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/pushforward \
    && /opt/pushforward/bin/pip install --no-cache-dir '.[serve]' 'psycopg[binary]>=3.2'

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --create-home pushforward
COPY --from=build /opt/pushforward /opt/pushforward
ENV PATH=/opt/pushforward/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PUSHFORWARD_STORE=sqlite:////data/events.sqlite
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
# Beyond loopback a token file is needed; it is mounted as a secret.
ENTRYPOINT ["pushforward", "serve", "--host", "0.0.0.0", "--port", "8000", "--token-file", "/run/secrets/tokens"]
CMD ["/guards/guard.safetensors"]
