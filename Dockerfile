# One image per role from one file: docker build --target api|relay|annotation-worker|training-worker|migrate .
# Only training-worker carries torch.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/causeway
WORKDIR /src
COPY constraints.txt ./
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY annotator annotator
COPY trainer trainer
COPY api api
COPY worker worker
COPY migrations migrations
COPY cli cli
COPY benchmarks benchmarks
RUN /opt/causeway/bin/python -m pip install -c constraints.txt .

FROM build AS build-trainer
# Arguments to pip for another build of torch than the pinned one, e.g. a CPU-only one: see `make setup TORCH=...`.
ARG TORCH=
RUN if [ -n "$TORCH" ]; then \
      grep -v '^torch==' constraints.txt > pinned.txt && /opt/causeway/bin/python -m pip install $TORCH; \
    else cp constraints.txt pinned.txt; fi \
 && /opt/causeway/bin/python -m pip install -c pinned.txt '.[trainer]'

FROM ${PYTHON_IMAGE} AS runtime
# A number, so that runAsNonRoot can be checked from outside. Volumes take the owner of the folder they are mounted on.
RUN groupadd --gid 10001 causeway \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin causeway \
 && install -d -o 10001 -g 10001 /data /data/blobs /data/runs /data/spool /data/models \
 && python -m pip uninstall --yes pip setuptools wheel
ENV PATH=/opt/causeway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CAUSEWAY_STORAGE__BLOBS=/data/blobs \
    CAUSEWAY_STORAGE__RUNS=/data/runs \
    CAUSEWAY_STORAGE__SPOOL=/data/spool
WORKDIR /data
USER 10001:10001

FROM runtime AS service
COPY --from=build /opt/causeway /opt/causeway

FROM service AS migrate
CMD ["causeway", "migrate"]
HEALTHCHECK NONE

FROM service AS api
EXPOSE 8000
# Inside the container; who may reach it from outside is decided by what is published.
ENV CAUSEWAY_API__HOST=0.0.0.0 CAUSEWAY_API__PORT=8000
CMD ["python", "-m", "api"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]

FROM service AS relay
CMD ["python", "-m", "worker", "relay"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["causeway", "health"]

FROM service AS annotation-worker
CMD ["python", "-m", "worker", "annotation"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["causeway", "health"]

FROM runtime AS training-worker
COPY --from=build-trainer /opt/causeway /opt/causeway
# Downloaded base models and compiled kernels: the root file system is read-only.
ENV HF_HOME=/data/models TRITON_CACHE_DIR=/tmp/triton MPLCONFIGDIR=/tmp/matplotlib
CMD ["python", "-m", "worker", "training"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["causeway", "health"]
