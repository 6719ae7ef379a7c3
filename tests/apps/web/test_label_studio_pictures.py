"""Where images of tasks are taken from, and where they are not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from annofree.apps.web.label_studio.pictures import Pictures
from annofree.errors import ImageError, InputError

ELSEWHERE = "http://127.0.0.1:9/secret"


class _Site(BaseHTTPRequestHandler):
    """A Label Studio that has one image, a redirect, and short tokens."""

    seen: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", ELSEWHERE)
            self.end_headers()
            return
        self.send_response(200 if "there" in self.path else 404)
        self.end_headers()
        self.wfile.write(b"picture")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"access": f"short-{asked['refresh']}"}).encode())

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def host() -> Iterator[str]:
    _Site.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["a/b.jpg", "/a/b.jpg", "a%2Fb.jpg", "a/../a/b.jpg"])
def test_local_files_are_found_below_the_folder(tmp_path: Path, name: str) -> None:
    place = tmp_path / "files" / "a" / "b.jpg"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    assert Pictures(tmp_path / "files").find_file(f"/data/local-files/?d={name}") == place


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/../secret.jpg", "a/../../secret.jpg", "link.jpg", "none.jpg", "", "%00", "a" * 5000]
)
def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "files" / "a").mkdir(parents=True)
    (tmp_path / "files" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ImageError, match="found none"):
        Pictures(tmp_path / "files").find_file(f"/data/local-files/?d={name}")


@pytest.mark.parametrize("key, said", [(None, None), ("abc", "Token abc"), ("a.b.c", "Bearer short-a.b.c")])
def test_pictures_are_fetched_with_the_key_of_the_named_host(host: str, key: str | None, said: str | None) -> None:
    pictures = Pictures(host=host, key=key)
    for address in (
        "/data/upload/1/there a.jpg",
        f"{host}/data/upload/1/there%20a.jpg",
        f"{host.replace('http', 'HTTP')}/there",
    ):
        assert pictures.fetch(address) == b"picture"
    assert _Site.seen[0] == _Site.seen[1] == ("/data/upload/1/there%20a.jpg", said)
    assert "abc" not in repr(pictures)


@pytest.mark.parametrize(
    "address",
    [
        ELSEWHERE,
        "//127.0.0.1:9/there",
        "https://{host}/there",
        "http://{host}@127.0.0.1:9/there",
        "http://user:password@{host}/there",
        "http://{host}.example/there",
        "file:///etc/passwd",
        "ftp://{host}/there",
        "s3://bucket/there.jpg",
        "data:image/png;base64,aaaa",
        "there.jpg",
        "http://[bad/there",
        "http://127.0.0.1:port/there",
        "",
    ],
)
def test_nothing_is_fetched_from_elsewhere(host: str, address: str) -> None:
    with pytest.raises(ImageError, match="an image"):
        Pictures(host=host, key="abc").fetch(address.replace("{host}", host.removeprefix("http://")))
    assert _Site.seen == []


def test_a_redirect_is_not_followed_nor_is_what_is_not_there_a_picture(host: str) -> None:
    for address in ("/away", "/none"):
        with pytest.raises(ImageError, match="cannot be fetched"):
            Pictures(host=host).fetch(address)


def test_a_picture_that_is_too_large_is_refused(host: str) -> None:
    with pytest.raises(ImageError, match="at most 3 bytes"):
        Pictures(host=host, most=3).fetch("/there")


def test_without_a_host_nothing_is_fetched() -> None:
    with pytest.raises(ImageError, match="LABEL_STUDIO_URL"):
        Pictures().fetch("/data/upload/1/a.jpg")
    assert Pictures().find_file("/data/local-files/?d=a.jpg") is None


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://a", "", "http://"])
def test_a_host_is_an_address(host: str) -> None:
    with pytest.raises(InputError, match="address of Label Studio"):
        Pictures(host=host)


@pytest.mark.parametrize("address", ["http://[", "http://[/data/local-files/?d=a.png", "http://x:y/data/local-files/?d=a.png"])
def test_an_address_that_is_none_is_one_message(tmp_path: Path, address: str) -> None:
    places = Pictures(tmp_path)
    assert places.find_file(address) is None
    with pytest.raises(ImageError, match="expected an image in local files"):
        places.fetch(address)
