"""What the server refuses: one test for each line of its rules."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from starlette.testclient import TestClient
from tests.support.cli import Cli
from tests.support.serving import StandIn, make_photos, make_workspace, open_client

from annofree.apps.web.options import Address
from annofree.apps.web.security import RefusedError, _count
from annofree.apps.web.start import find_socket
from annofree.apps.web.uploads import Limits
from annofree.errors import InputError

TOKEN = "a-long-enough-token-1"
LIMITS = Limits(upload_bytes=200_000, json_bytes=20_000, pixels=10_000, files=3, patience=0.3)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    workspace = make_workspace(tmp_path / "out", make_photos(tmp_path / "photos"), limits=LIMITS)
    with open_client(workspace) as opened:
        yield opened


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    workspace = make_workspace(tmp_path / "guarded", make_photos(tmp_path / "photos"))
    with open_client(workspace, token=TOKEN, hosts=("photos.example",), any_address=True) as opened:
        yield opened


def picture(size: tuple[int, int] = (12, 8), kind: str = "PNG") -> bytes:
    file = BytesIO()
    PIL.Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def test_it_listens_on_this_machine_alone_unless_told() -> None:
    with find_socket(Address()) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "photos.example"])
def test_another_address_needs_a_token(host: str) -> None:
    with pytest.raises(InputError, match="expected --token with --host"):
        Address(host)
    assert Address(host, token=TOKEN).host == host


def test_the_command_refuses_another_address_without_a_token(cli: Cli, tmp_path: Path) -> None:
    said = cli("serve", "--host", "0.0.0.0", "--out", tmp_path / "out")
    assert said.code == 2 and "expected --token" in said.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("token", ["short", "with a blank in the middle", "ä" * 20])
def test_a_token_that_is_easily_guessed_or_lost_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="at least 16 ASCII letters"):
        Address("0.0.0.0", token=token)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "",
        "10.0.0.1",
        "[::1]evil.example",
        "localhost:@evil.example",
        "localhost:8000, evil.example",
        "localhost:x",
    ],
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/workspace", "/api/images/a.jpg/picture"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421 and "expected this server by its own name" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "LOCALHOST", "[::1]:8000"])
def test_this_machine_s_own_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/api/workspace", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:8000",
        "file://",
        "http://[",
        "//127.0.0.1:8000",
        "ftp://127.0.0.1:8000",
        "http://127.0.0.1:8000/x",
        "",
    ],
)
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    for answer in (
        client.get("/api/workspace", headers={"Origin": origin}),
        client.put("/api/classes", json={"classes": []}, headers={"Origin": origin}),
    ):
        assert answer.status_code == 403 and "expected a request of this page" in answer.json()["error"]
    assert client.get("/api/workspace", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_embeds_is_refused(client: TestClient, site: str) -> None:
    assert client.get("/api/images/a.jpg/picture", headers={"Sec-Fetch-Site": site}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": site}).status_code != 403  # a link to the page


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/classes"),
        ("PUT", "/api/settings"),
        ("POST", "/api/images"),
        ("POST", "/api/images/a.jpg/acts"),
        ("POST", "/api/images/a.jpg/undo"),
        ("POST", "/api/images/a.jpg/redo"),
        ("POST", "/api/images/a.jpg/segment"),
        ("DELETE", "/api/images/a.jpg"),
    ],
)
def test_what_changes_something_needs_the_header(client: TestClient, method: str, path: str) -> None:
    del client.headers["X-Annofree"]
    answer = client.request(method, path, json={})
    assert answer.status_code == 403 and "X-Annofree" in answer.json()["error"]


def test_other_tools_need_no_header_and_browsers_get_nothing_there(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "out", None)
    with open_client(workspace, headers={}, open_paths=("/predict",)) as client:
        assert client.post("/predict", json={}).status_code in (404, 405)  # no such route here
        assert client.post("/predict", json={}, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 403
        assert client.post("/predict", json={}, headers={"Sec-Fetch-Site": "none"}).status_code == 403


def test_no_other_origin_may_read(client: TestClient) -> None:
    for answer in (
        client.get("/api/workspace"),
        client.options("/api/classes", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}),
    ):
        assert not any(name.startswith("access-control-") for name in answer.headers)


def test_every_answer_has_the_headers(client: TestClient, guarded: TestClient) -> None:
    answers = [
        client.get("/api/workspace"),
        client.get("/api/images/none/answer"),
        client.get("/", headers={"Host": "evil.example"}),
        client.get("/api/images/a.jpg/picture"),
        guarded.get("/api/workspace"),
    ]
    for answer in answers:
        csp = answer.headers["content-security-policy"]
        assert "default-src 'self'" in csp and "frame-ancestors 'none'" in csp and "unsafe" not in csp
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers


def test_a_token_is_needed_everywhere(guarded: TestClient) -> None:
    for path in ("/", "/api/workspace", "/api/images/a.jpg/picture", "/static/app.js", "/nothing"):
        answer = guarded.get(path)
        assert answer.status_code == 401 and "expected the token" in answer.json()["error"]
    for wrong in ("Bearer no", "Bearer ", f"Bearer {TOKEN}x", "Basic ????", "bearer", f"Digest {TOKEN}"):
        assert guarded.get("/api/workspace", headers={"Authorization": wrong}).status_code == 401


def test_a_token_comes_as_a_bearer_a_password_or_once_in_the_address(guarded: TestClient) -> None:
    assert guarded.get("/api/workspace", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    password = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert guarded.get("/api/workspace", headers={"Authorization": f"Basic {password}"}).status_code == 200
    answer = guarded.get(f"/api/workspace?token={TOKEN}&x=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/workspace?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert guarded.get("/api/workspace").status_code == 200  # the client kept it
    for path, place in (("//evil.example/", "/evil.example/"), ("/%0d%0aX: y", "/%0D%0AX%3A%20y")):
        answer = guarded.get(f"http://127.0.0.1:8000{path}?token={TOKEN}", follow_redirects=False)
        assert answer.headers["location"] == place


def test_a_server_for_others_is_called_by_addresses_and_the_names_it_was_given(guarded: TestClient) -> None:
    guarded.headers["Authorization"] = f"Bearer {TOKEN}"
    for host, status in (("192.168.1.7:8000", 200), ("photos.example", 200), ("evil.example", 421)):
        assert guarded.get("/api/workspace", headers={"Host": host}).status_code == status


def test_uploads_are_capped_by_bytes_as_they_come(client: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        while read < 5_000_000:
            read += 50_000
            yield b"0" * 50_000

    head = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/images", content=endless(), headers=head)
    assert answer.status_code == 413 and "at most 0.2 MB" in answer.json()["error"]
    told = client.post("/api/images", content=b"", headers={**head, "Content-Length": "999999999"})
    assert told.status_code == 413
    assert client.put("/api/classes", content=b" " * 30_000, headers={"Content-Type": "application/json"}).status_code == 413


def test_uploads_are_capped_by_pixels_before_they_are_decoded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annofree.apps.web.uploads.decode_bytes", lambda *_: pytest.fail("it was decoded"))
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk
    rest = struct.pack(">I", 9) + b"IDAT" + b"\0" * 13
    for data in (picture((200, 100)), bomb + rest):
        answer = client.post("/api/images", files=[("files", ("a.png", data))])
        assert answer.status_code == 400
        assert "expected at most 10,000 pixels" in answer.json()["rejected"][0]["error"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", picture()[:45], picture()[:30], b"\xff\xd8\xff\xe0" + b"\0" * 50, b"GIF89a", b"<svg onload='x'/>"],
    ids=["empty", "text", "cut", "head", "jpeg", "gif", "svg"],
)
def test_a_malformed_upload_is_one_message(client: TestClient, data: bytes, tmp_path: Path) -> None:
    answer = client.post("/api/images", files=[("files", ("a.png", data)), ("files", ("good.png", picture()))])
    held = answer.json()
    assert answer.status_code == 200 and held["added"] == ["uploads/good.png"]
    (rejected,) = held["rejected"]
    assert rejected["file"] == "a.png" and rejected["error"].startswith("expected") and "\n" not in rejected["error"]
    assert [p.name for p in (tmp_path / "out/serve/uploads").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"--x\r\nrubbish", "multipart/form-data; boundary=x"),
        (b"rubbish", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
def test_a_malformed_form_is_one_message(client: TestClient, content: bytes, kind: str) -> None:
    answer = client.post("/api/images", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str)


def test_more_files_than_may_be_are_refused(client: TestClient) -> None:
    answer = client.post("/api/images", files=[("files", (f"{k}.png", picture())) for k in range(4)])
    assert answer.status_code == 400 and "error" in answer.json()


@pytest.mark.parametrize("name", ["../../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "C:\\evil.png", "a/b/../evil.png"])
def test_names_of_uploads_stay_in_their_folder(client: TestClient, name: str, tmp_path: Path) -> None:
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    answer = client.post("/api/images", files=[("files", (name, picture()))])
    assert answer.json()["added"] == ["uploads/evil.png"]
    new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert new == {tmp_path / "out/serve/uploads/evil.png"}
    assert client.post("/api/images", files=[("files", (name, picture()))]).json()["added"] == ["uploads/evil-2.png"]


@pytest.mark.parametrize("name", ["\U0001f600" * 120 + ".png", "\u00e9" * 120 + ".png", "x" * 200])
def test_long_names_fit_into_a_file_s(client: TestClient, name: str) -> None:
    answer = client.post("/api/images", files=[("files", (name, picture()))])
    (added,) = answer.json()["added"]
    assert added.endswith(".png") and len(added.encode()) < 230
    assert client.get(f"/api/images/{added}/thumbnail").status_code == 200


def test_a_name_of_an_upload_that_is_no_text_is_one_message(client: TestClient) -> None:
    body = b'--q\r\nContent-Disposition: form-data; name="files"; filename="+2AA-"\r\n\r\nx\r\n--q--\r\n'
    answer = client.post(
        "/api/images", content=body, headers={"Content-Type": "multipart/form-data; boundary=q; charset=utf-7"}
    )
    assert answer.status_code == 400 and answer.json()["rejected"][0]["error"].startswith("expected an image")


@pytest.mark.parametrize(
    "id_",
    [
        "../out/serve/workspace.json",
        "..%2fout%2fserve%2fworkspace.json",
        "%2e%2e/secret.jpg",
        "%2fetc%2fpasswd",
        "a.jpg%00.png",
        "deep%2f..%2fa.jpg",
        "./a.jpg%2f",
    ],
)
def test_ids_are_looked_up_and_never_joined(client: TestClient, id_: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(kind="JPEG"))
    for what in ("picture", "thumbnail", "answer", "explain"):
        assert client.get(f"/api/images/{id_}/{what}").status_code in (400, 404)
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"nul",
        b'{"classes": NaN}',
        b"[" * 5000,
        b'{"a": 1}',
        b"\xff\xfe",
        b"9" * 5000,
        rb'{"classes": [{"name": "\ud800"}]}',
        b'{"classes": "\xed\xa0\x80"}',
        "{}".encode("utf-16"),
    ],
)
def test_malformed_json_is_one_message(client: TestClient, content: bytes) -> None:
    answer = client.put("/api/classes", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"].startswith("expected")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/classes", {"classes": "dog"}),
        ("PUT", "/api/classes", {"classes": [{"name": 7}]}),
        ("PUT", "/api/classes", {"classes": [{"name": ""}]}),
        ("PUT", "/api/classes", {"classes": [{"name": "a"}, {"name": "a"}]}),
        ("PUT", "/api/classes", {"classes": [{"name": "a", "synonyms": "b"}]}),
        ("PUT", "/api/settings", {"method": "/etc"}),
        ("PUT", "/api/settings", {"method": ["zip"]}),
        ("PUT", "/api/settings", {"preset": "../models"}),
        ("PUT", "/api/settings", {"device": "cuda"}),
        ("POST", "/api/images/a.jpg/acts", {"acts": [], "revision": 0}),
        ("POST", "/api/images/a.jpg/acts", {"acts": [7], "revision": 0}),
        ("POST", "/api/images/a.jpg/acts", {"acts": [{"act": "accept"}]}),
        ("POST", "/api/images/a.jpg/segment", {"points": 7}),
        ("GET", "/api/images?limit=0", None),
        ("GET", "/api/images?limit=x", None),
        ("GET", "/api/images?offset=-1", None),
        ("GET", "/api/images?order=color", None),
        ("GET", "/api/images/a.jpg/labels.png?task=x", None),
        ("GET", "/api/export?format=exe", None),
        ("GET", "/api/revisions?since=1e9", None),
    ],
)
def test_wrong_parameters_are_one_message(client: TestClient, method: str, path: str, body: Any) -> None:
    answer = client.request(method, path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error.startswith(("expected", "unknown", "a class name"))) and "\n" not in error and "Traceback" not in error


def test_a_failure_inside_tells_nothing_of_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: StandIn, *_: Any) -> None:
        raise ZeroDivisionError("/secret/place")

    monkeypatch.setattr(StandIn, "rank", fail)
    answer = client.get("/api/images/a.jpg/answer")
    assert answer.status_code == 500 and "secret" not in answer.text


def test_several_headers_that_contradict_are_refused(client: TestClient) -> None:
    answer = client.get("/api/workspace", headers=[("Origin", "http://127.0.0.1:8000"), ("Origin", "http://evil.example")])
    assert answer.status_code == 400


def test_a_web_socket_is_closed(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


def test_a_name_with_the_end_of_a_line_is_found(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "two\nlines.jpg").write_bytes(picture(kind="JPEG"))
    with open_client(make_workspace(tmp_path / "out", photos)) as opened:
        for what in ("thumbnail", "picture"):
            assert opened.get(f"/api/images/two%0Alines.jpg/{what}").status_code == 200


def test_a_request_that_only_drips_is_ended() -> None:
    async def read_slowly() -> int:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b" ", "more_body": True}

        counted, pieces = _count(receive, 1000, 0.2), 0
        while True:
            try:
                await counted()
            except RefusedError as refusal:
                assert refusal.status == 408
                return pieces
            pieces += 1

    assert asyncio.run(read_slowly()) < 100
