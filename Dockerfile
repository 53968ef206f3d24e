# docker build -t vitrim .
# docker run --name vitrim-demo vitrim && docker cp vitrim-demo:/home/vitrim/runs .
FROM python:3.13-slim

RUN useradd --create-home vitrim
COPY pyproject.toml README.md LICENSE /src/vitrim/
COPY src /src/vitrim/src
RUN pip install --no-cache-dir "/src/vitrim[onnx]"

USER vitrim
WORKDIR /home/vitrim
ENTRYPOINT ["vitrim"]
CMD ["study", "demo"]
