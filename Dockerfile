# docker build -t annofree . && docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" annofree segment photos --classes "dog, cat"
# a page: docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD:/data" -u "$(id -u):$(id -g)" -e ANNOFREE_TOKEN=... annofree
FROM python:3.11-slim

RUN pip install --no-cache-dir uv
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN uv sync --no-dev --no-editable --no-cache --extra web

# models that are fetched, and what is kept of them, go below HOME; any user may write there
RUN useradd --create-home annofree && chmod 777 /home/annofree
ENV HOME=/home/annofree PATH="/app/.venv/bin:$PATH"
USER annofree
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["annofree"]
# of all addresses of the container, so it needs a token: -e ANNOFREE_TOKEN=...
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
