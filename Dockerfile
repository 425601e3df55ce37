# syntax=docker/dockerfile:1
# One image for every role: worker, scheduler, console, and commands such as `topics create`.
# Its steps are also run without an engine: tests/integration/test_deploy_image.py.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/taskmill
# What is pinned comes first: this layer is made anew only when the pins change. Wheels alone: no
# compiler is needed, here or in the image.
COPY requirements/image.txt requirements/image.txt
RUN /opt/taskmill/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY taskmill taskmill
COPY runtime runtime
COPY schemas schemas
COPY producer producer
COPY consumer consumer
COPY scheduler scheduler
COPY console console
RUN /opt/taskmill/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
# Nothing is installed in a running container: what installs does not stay.
RUN /opt/taskmill/bin/pip check && /opt/taskmill/bin/pip uninstall --yes --quiet setuptools pip
# The root is read-only, so what is compiled is compiled now.
RUN /opt/taskmill/bin/python -m compileall -q /opt/taskmill/lib

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/taskmill /opt/taskmill
COPY deploy/image/healthcheck.py /opt/taskmill/healthcheck.py
# /app: the user's modules, found by -A from there. /var/lib/taskmill: local stores and slots, a volume.
RUN mkdir -p /app /var/lib/taskmill && chown 10001:10001 /var/lib/taskmill
ENV PATH=/opt/taskmill/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/taskmill \
    TASKMILL_STATE_DIR=/var/lib/taskmill \
    TASKMILL_METRICS_PORT=9464 \
    TASKMILL_CONSOLE_HOST=0.0.0.0
WORKDIR /app
# A number: Kubernetes can tell that it is not root without looking into the image.
USER 10001:10001
EXPOSE 9464 8420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/taskmill/healthcheck.py"]
# No shell between: SIGTERM reaches the role, which drains.
ENTRYPOINT ["taskmill"]
CMD ["--help"]
