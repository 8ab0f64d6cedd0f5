# The server of GPT-3 models, see docs/serve.md. Weights are not part of the image: mount ./runs.
FROM python:3.12-slim

# CPU builds of torch. For CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt ".[constrain,serve]" \
  && useradd --create-home --uid 10001 gpt3

USER 10001
WORKDIR /home/gpt3
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The kernel keeps SIGTERM from a container's first process as long as nothing handles it, as while the model is loaded.
STOPSIGNAL SIGINT
ENTRYPOINT ["gpt3"]
# On all addresses of the container, so GPT3_API_KEY must be set. docker run -p decides where the host publishes the port.
CMD ["serve", "--host", "0.0.0.0"]
