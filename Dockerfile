# The images of the parts, one target each. Build them from the top of the checkout:
#   docker build --target bridge       -t fabwafer-bridge .
#   docker build --target handlers     -t fabwafer-handlers .
#   docker build --target kserve-model -t fabwafer-kserve-model .
#   docker build --target training-job -t fabwafer-training-job .
# An image holds the code and the commands of its part, and runs as user 65532. It has no entrypoint: without a command
# it starts its part's process, with one it runs that, for example `docker run fabwafer-bridge fabwafer migrate`.
#
# Layers: torch, the other dependencies, the code. What changes last comes last: a node that holds the layers below
# loads a new release in a moment. Dependencies are those of pyproject.toml's extras, in the versions of constraints.txt.
# All come as wheels: no image has a compiler, and none was needed to build it.
#
# Labels: --build-arg VERSION=X.Y.Z --build-arg REVISION=COMMIT --build-arg SOURCE=URL-OF-THE-REPOSITORY.
ARG VERSION="" REVISION="" SOURCE=""

FROM python:3.11-slim-bookworm AS python
# A virtual environment has the same folders with every build of Python, so that code can be copied from stage to stage.
ENV PIP_PYTHON=/opt/fabwafer/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/fabwafer
# Processes write to /tmp alone; with a read-only root, mount an emptyDir there.
ENV PATH=/opt/fabwafer/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1

# Lists of dependencies, as files: a layer below is built again when its list changes, not when pyproject.toml does.
FROM python AS requirements
WORKDIR /requirements
COPY pyproject.toml requirements.py constraints.txt image-trim.sh ./
RUN python requirements.py bridge rollout s3 > bridge.txt \
    && python requirements.py serve s3 > handlers.txt \
    && python requirements.py archive kserve s3 > kserve-model.txt \
    && python requirements.py training postgres > training-job.txt \
    && grep '^torch==' handlers.txt > torch.txt

# What the wheels of all parts have in common.
FROM python AS source
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY model-store model-store
COPY fabwafer fabwafer

FROM source AS bridge-code
COPY bridge/fabwafer_bridge bridge/fabwafer_bridge
RUN pip install --no-deps --no-build-isolation --root /install .

# The bridge with its consumers, device-auth and the gateway.
FROM python AS bridge
COPY --from=requirements /requirements/constraints.txt /requirements/image-trim.sh /requirements/bridge.txt /requirements/
RUN pip install -c /requirements/constraints.txt -r /requirements/bridge.txt && sh /requirements/image-trim.sh
COPY --from=bridge-code /install /
ENV FABWAFER_METRICS_HOST=0.0.0.0 FABWAFER_METRICS_PORT=9100
EXPOSE 9100
USER 65532:65532
CMD ["fabwafer", "bridge"]
ARG VERSION REVISION SOURCE
LABEL org.opencontainers.image.title="fabwafer-bridge" \
    org.opencontainers.image.description="Carries wafer maps and predictions between devices, the model server and the records of fabwafer" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.licenses="Apache-2.0"

FROM python AS torch
COPY --from=requirements /requirements/torch.txt /requirements/
# The usual torch package is a CUDA build of several gigabytes, for nodes with a GPU. For nodes without one:
#   --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX_URL=""
# Removed are tests, and what compiles extensions of torch.
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -r /requirements/torch.txt \
    && cd /opt/fabwafer/lib/python3.11/site-packages \
    && rm -rf torch/test torch/include torch/bin/protoc* torch/bin/*Test torch/bin/test_* \
    && find . -type d -name tests -prune -exec rm -r {} +

FROM source AS handlers-code
COPY handlers/fabwafer_handlers handlers/fabwafer_handlers
RUN pip install --no-deps --no-build-isolation --root /install .

# TorchServe with the handler of fabwafer. TorchServe's worker imports torch, the handler does not.
FROM torch AS handlers
COPY --from=requirements /requirements/constraints.txt /requirements/image-trim.sh /requirements/handlers.txt /requirements/
RUN pip install -c /requirements/constraints.txt -r /requirements/handlers.txt && sh /requirements/image-trim.sh
COPY --from=handlers-code /install /
# A worker has one thread for the model. Sockets and the unpacked archive are the only files written.
ENV OMP_NUM_THREADS=1 TMPDIR=/tmp TEMP=/tmp LOG_LOCATION=/tmp METRICS_LOCATION=/tmp
EXPOSE 8080 8082
USER 65532:65532
CMD ["python", "-m", "fabwafer_handlers.serve", "--config", "/mnt/models/config.properties"]
ARG VERSION REVISION SOURCE
LABEL org.opencontainers.image.title="fabwafer-handlers" \
    org.opencontainers.image.description="TorchServe with the handler that names the defect patterns of wafer maps" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.licenses="Apache-2.0"

# KServe's own Python server with the same answers: neither torch nor Java.
FROM python AS kserve-model
COPY --from=requirements /requirements/constraints.txt /requirements/image-trim.sh /requirements/kserve-model.txt /requirements/
RUN pip install -c /requirements/constraints.txt -r /requirements/kserve-model.txt && sh /requirements/image-trim.sh
COPY --from=handlers-code /install /
ENV OMP_NUM_THREADS=1
EXPOSE 8080 8081
USER 65532:65532
CMD ["python", "-m", "fabwafer_handlers.kserve_model", "--model_dir", "/mnt/models/wafer"]
ARG VERSION REVISION SOURCE
LABEL org.opencontainers.image.title="fabwafer-kserve-model" \
    org.opencontainers.image.description="KServe's Python server with the model that names the defect patterns of wafer maps" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.licenses="Apache-2.0"

FROM source AS training-job-code
COPY training-job/fabwafer_training training-job/fabwafer_training
RUN pip install --no-deps --no-build-isolation --root /install .

# The retraining Job.
FROM torch AS training-job
COPY --from=requirements /requirements/constraints.txt /requirements/image-trim.sh /requirements/training-job.txt /requirements/
RUN pip install -c /requirements/constraints.txt -r /requirements/training-job.txt && sh /requirements/image-trim.sh
COPY --from=training-job-code /install /
USER 65532:65532
CMD ["python", "-m", "fabwafer_training"]
ARG VERSION REVISION SOURCE
LABEL org.opencontainers.image.title="fabwafer-training-job" \
    org.opencontainers.image.description="Retrains the model of fabwafer on reviewed wafers" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.licenses="Apache-2.0"
