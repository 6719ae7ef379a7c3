"""A hub on 127.0.0.1 that speaks what the Hugging Face client asks for single files, with all that can go wrong on the way.

As on the real one, small files come from the hub itself, under git's checksum, and large ones by a redirect from another host,
under their SHA-256, with Xet announced beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub import constants
from pytest import MonkeyPatch

__all__ = ["LoopbackHub", "Request", "point_to", "serve_hub"]

_BLOCK = 1 << 14
_SMALL = (".json", ".txt", ".md")


@dataclass(frozen=True)
class Request:
    """What was asked, of which host: ``hub`` or ``cdn``; from which byte on, and whether with a token."""

    host: str
    method: str
    path: str
    start: int
    authorized: bool


@dataclass
class LoopbackHub:
    """Repositories, faults and the requests so far.

    Faults: ``gate``, ``gone``, ``stale`` (any token is refused), ``status`` (a number), ``after`` (with it, seconds to wait),
    ``lacks`` (a file), ``drop`` (bytes after which each body breaks off), ``slow`` (seconds a block), ``corrupt`` (a byte is
    another), ``whole`` (ranges are unknown), ``portal`` (a login page answers), ``portal_cdn`` (of the other host alone).
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    hub: str = ""
    cdn: str = ""

    def publish(self, repo: str, files: Mapping[str, bytes], commit: str = "") -> str:
        """Put files into a repository as its newest commit, which is returned."""
        self.repos[repo] = dict(files)
        digest = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        self.commits[repo] = commit or digest
        return self.commits[repo]

    def take_requests(self) -> list[Request]:
        """Return the requests since the last call."""
        taken, self.requests = self.requests, []
        return taken


@contextmanager
def serve_hub() -> Iterator[LoopbackHub]:
    """Serve a hub and its other host on free ports as long as a block lasts."""
    hub = LoopbackHub()
    servers = [_Server(("127.0.0.1", 0), partial(_Handler, hub, host)) for host in ("hub", "cdn")]
    hub.hub, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def point_to(monkeypatch: MonkeyPatch, endpoint: str, home: Path) -> None:
    """Let the client of this process ask ``endpoint``, without a token, and keep everything in ``home``, a new machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("ANNOFREE_HOME", str(home / "annofree"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    huggingface_hub.close_session()  # it looked at the proxies of before


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of who hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: LoopbackHub, host: str, *more: Any) -> None:
        self.hub, self.host = hub, host
        super().__init__(*more)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        fault: Callable[[str], Any] = self.hub.faults.get
        path = unquote(self.path)
        given = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start, token = int(given[1]) if given else 0, self.headers.get("Authorization")
        self.hub.requests.append(Request(self.host, self.command, path, start, bool(token)))
        asked = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        about = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(/revision/[^?]+)?(\?.*)?", path)
        if fault("portal") or (fault("portal_cdn") and self.host == "cdn"):
            self._say(200, {"Content-Type": "text/html; charset=utf-8", "ETag": '"p"'}, b"<html>Welcome to the hotel</html>")
        elif fault("status"):
            self._say(fault("status"), {"Retry-After": str(fault("after"))} if fault("after") else {}, b"<html>busy</html>")
        elif about and about[1] in self.hub.repos:
            self._say(200, {"Content-Type": "application/json"}, json.dumps(self._describe(about[1])).encode())
        elif asked is None:
            self._say(404, {"X-Error-Code": "EntryNotFound"})
        elif self.host == "cdn":
            self._send(self.hub.repos[asked[1]][asked[3]], start if given and not fault("whole") else None)
        elif fault("stale") and token:
            self._say(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif asked[1] not in self.hub.repos or fault("gone"):
            self._say(401, {"X-Error-Code": "RepoNotFound"})
        elif fault("gate"):
            self._say(403 if token else 401, {"X-Error-Code": "GatedRepo"})
        elif asked[2] not in ("main", self.hub.commits[asked[1]]):
            self._say(404, {"X-Error-Code": "RevisionNotFound"})
        elif asked[3] not in self.hub.repos[asked[1]] or fault("lacks") == asked[3]:
            self._say(404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._point(asked[1], asked[3])

    def _describe(self, repo: str) -> dict[str, Any]:
        files = self.hub.repos[repo].items()
        sizes = [{"rfilename": name, "size": len(content), "blobId": "0"} for name, content in files]
        for about, (name, content) in zip(sizes, files, strict=True):
            if not name.endswith(_SMALL):
                about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
        terms = {
            "gated": "manual" if self.hub.faults.get("gate") else False,
            "cardData": {"license": self.hub.licences.get(repo)},
        }
        return {"id": repo, "sha": self.hub.commits[repo], "siblings": sizes, **terms}

    def _point(self, repo: str, name: str) -> None:
        content, about = self.hub.repos[repo][name], {"X-Repo-Commit": self.hub.commits[repo]}
        if name.endswith(_SMALL):
            git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            self._say(200, about | {"ETag": f'"{git}"', "Content-Type": "text/plain"}, content)
            return
        sha = hashlib.sha256(content).hexdigest()
        about |= {"X-Linked-ETag": f'"{sha}"', "X-Linked-Size": str(len(content)), "Location": f"{self.hub.cdn}{self.path}"}
        dead = "http://127.0.0.1:9"  # what Xet would be asked for; nothing listens there
        about |= {"X-Xet-Hash": sha[::-1], "Link": f'<{dead}/token>; rel="xet-auth", <{dead}/x>; rel="xet-reconstruction-info"'}
        self._say(302, about)

    def _say(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send(self, content: bytes, start: int | None) -> None:
        """Send the bytes of a large file, as the faults have it."""
        fault: Callable[[str], Any] = self.hub.faults.get
        if fault("corrupt"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(len(content) - (start or 0)))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        body = content[start or 0 :]
        for at in range(0, len(body), _BLOCK):
            if fault("drop") is not None and at >= fault("drop"):
                self.close_connection = True
                self.connection.shutdown(2)
                return
            time.sleep(fault("slow") or 0)
            try:
                self.wfile.write(body[at : at + _BLOCK])
            except OSError:
                return  # who asked is gone
