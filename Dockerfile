# vitrim in a container; the default command is the demo. How to use it: docs/machines.md#in-a-container
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim

# pip reads it from the environment: an index with PyTorch's builds for processors, which are several GB smaller.
ARG PIP_EXTRA_INDEX_URL

COPY pyproject.toml README.md LICENSE /src/vitrim/
COPY src /src/vitrim/src
RUN pip install --no-cache-dir "/src/vitrim[onnx,formats]" && rm -r /src

# `docker run --user` may name any user: each needs a name, a home and a working directory to write to.
ENV HOME=/home/vitrim USER=vitrim
RUN useradd --create-home --uid 1000 vitrim && mkdir /vitrim && chmod 1777 /home/vitrim /vitrim

USER 1000:1000
WORKDIR /vitrim
ENTRYPOINT ["vitrim"]
CMD ["study", "demo"]
