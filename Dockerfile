# Everything that docker-compose.yml runs, on Debian: `gateway`, `servers` (Ceph and Postgres), `keystone`
# and `balancer`.
#
# Where the Rust image cannot be pulled, hand in a binary built outside, on the same Debian:
#   --build-arg RUST_IMAGE=$BASE_IMAGE --build-arg BINARY=target/release/rockpool
ARG BASE_IMAGE=debian:bookworm-slim
ARG RUST_IMAGE=rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS build
ARG BINARY=
WORKDIR /src
COPY . .
RUN if [ -n "$BINARY" ]; then \
        cp "$BINARY" /rockpool; \
    else \
        apt-get update && \
        apt-get install -y --no-install-recommends gcc libc6-dev librbd-dev libssl-dev pkg-config && \
        cargo build --release --bin rockpool && \
        cp target/release/rockpool /rockpool; \
    fi

FROM ${BASE_IMAGE} AS servers
COPY ceph/cluster.sh /usr/local/bin/
RUN cluster.sh install && rm -rf /var/lib/apt/lists/*
COPY deploy/ /usr/local/lib/rockpool/

FROM ${BASE_IMAGE} AS keystone
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3-venv curl && \
    rm -rf /var/lib/apt/lists/* && \
    python3 -m venv /opt/keystone && \
    /opt/keystone/bin/pip install --no-cache-dir keystone==30.0.0 gunicorn==27.0.1 psycopg2-binary==2.9.13 && \
    useradd --system --no-create-home keystone
ENV PATH=/opt/keystone/bin:$PATH
COPY deploy/ /usr/local/lib/rockpool/
EXPOSE 5000
CMD ["bash", "/usr/local/lib/rockpool/keystone.sh"]

FROM ${BASE_IMAGE} AS balancer
RUN apt-get update && \
    apt-get install -y --no-install-recommends haproxy && \
    rm -rf /var/lib/apt/lists/*
COPY deploy/haproxy.cfg /etc/haproxy/haproxy.cfg
# HAProxy lets its transfers end at SIGUSR1; SIGTERM cuts them.
STOPSIGNAL SIGUSR1
EXPOSE 9292
CMD ["haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"]

FROM ${BASE_IMAGE} AS gateway
RUN apt-get update && \
    apt-get install -y --no-install-recommends librbd1 librados2 libssl3 ca-certificates curl && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --no-create-home rockpool
COPY --from=build /rockpool /usr/local/bin/rockpool
USER rockpool
EXPOSE 9292
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:9292/readyz"]
ENTRYPOINT ["rockpool"]
CMD ["serve", "--config", "/etc/rockpool/rockpool.toml"]
