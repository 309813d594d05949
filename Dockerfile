# A CPU server: docker build -t octvideo-serve . && docker run -p 8000:8000 -v $PWD/best.pyth:/model/best.pyth:ro octvideo-serve
FROM python:3.11-slim

RUN useradd --create-home octvideo
WORKDIR /app
# pytorch.org shows the index of the CPU wheels of torch; with it in PIP_OPTIONS the image is 3 GB smaller.
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir ${PIP_OPTIONS} torch==2.13.0
COPY setup.py README.md pyproject.toml ./
COPY octvideo octvideo
COPY configs configs
COPY data_lists data_lists
RUN pip install --no-cache-dir ".[serve]" "openvino>=2024.3"

USER octvideo
EXPOSE 8000
# exec form: SIGTERM reaches the server, which answers those who are inside.
ENTRYPOINT ["octvideo", "serve", "--host", "0.0.0.0"]
CMD ["--checkpoint", "/model/best.pyth", "--optimize"]
