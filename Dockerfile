# One small image for everything that runs outside the engine: router, sidecar, operator. vLLM has its own.
#   docker build -t tempo . && docker run --rm tempo router --help
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY sidecar sidecar
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/tempo \
    && wheel="$(echo /wheels/tempo_serving-*.whl)" \
    && /opt/tempo/bin/pip install --no-cache-dir "${wheel}[operator,router,sidecar,redis,otel,sim-engine]" \
    && /opt/tempo/bin/pip uninstall --yes pip

FROM python:3.12-slim
COPY --from=build /opt/tempo /opt/tempo
ENV PATH="/opt/tempo/bin:${PATH}" PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["tempo"]
