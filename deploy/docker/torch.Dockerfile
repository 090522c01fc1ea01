# Two images with PyTorch: a server of text models, and the tasks of `cloud-server pipeline`:
#   docker buildx build -f deploy/docker/torch.Dockerfile --target torch -t fleetlearn/torch:0.1.0 .
#   docker buildx build -f deploy/docker/torch.Dockerfile --target pipeline -t fleetlearn/pipeline:0.1.0 .
# An index whose torch is built for CPUs alone saves 3 GB: --build-arg UV_INDEX=URL
FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/opt/fleetlearn/bin:$PATH

FROM base AS build
ARG UV_INDEX=""
WORKDIR /src
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/fleetlearn
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY fleet_model fleet_model
COPY edge_agent edge_agent
COPY cloud_server cloud_server

# Compiled here: what runs has no right to write beside the code.
FROM build AS build-torch
RUN uv pip install --no-cache --compile-bytecode --python /opt/fleetlearn --constraint constraints.txt '.[torch-server]'

FROM build AS build-pipeline
RUN uv pip install --no-cache --compile-bytecode --python /opt/fleetlearn --constraint constraints.txt '.[kubeflow,pipelines]'

FROM base AS torch
RUN useradd --uid 10001 --home-dir /var/lib/cloud-server --shell /usr/sbin/nologin cloud-server \
    && install -d -o cloud-server -g cloud-server -m 0700 /var/lib/cloud-server
COPY --from=build-torch /opt/fleetlearn /opt/fleetlearn
USER 10001:10001
WORKDIR /var/lib/cloud-server
VOLUME /var/lib/cloud-server
EXPOSE 8443
ENTRYPOINT ["cloud-server"]
CMD ["start", "/var/lib/cloud-server/fleet"]

# No entry point: a cluster of Flyte or Kubeflow names the command of each task.
FROM base AS pipeline
ENV DO_NOT_TRACK=1
RUN useradd --uid 10001 --home-dir /var/lib/pipeline --shell /usr/sbin/nologin pipeline \
    && install -d -o pipeline -g pipeline -m 0700 /var/lib/pipeline
COPY --from=build-pipeline /opt/fleetlearn /opt/fleetlearn
USER 10001:10001
WORKDIR /var/lib/pipeline
CMD ["cloud-server", "pipeline", "run", "--help"]
