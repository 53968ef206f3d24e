# docker build -t vitrim .
# docker run --name vitrim-demo vitrim && docker cp vitrim-demo:/home/vitrim/runs .
FROM python:3.13-slim

# The address of PyTorch's index of CPU builds (pytorch.org, "Get started", gives it). Without it, pip takes the build
# for CUDA, which runs on a CPU too but is some gigabytes larger.
ARG TORCH_INDEX=""
RUN useradd --create-home vitrim
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision

COPY pyproject.toml README.md LICENSE /src/vitrim/
COPY src /src/vitrim/src
RUN pip install --no-cache-dir "/src/vitrim[onnx]"

USER vitrim
WORKDIR /home/vitrim
ENTRYPOINT ["vitrim"]
CMD ["study", "demo"]
