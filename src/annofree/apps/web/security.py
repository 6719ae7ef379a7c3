"""Who may ask what: hosts and origins, the token, forged requests, and how much is read; and the headers of every answer.

A page somewhere else must not reach this server through a browser: requests by another host name (DNS rebinding) or from
another origin are refused, and what changes something needs a header that other origins cannot send.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from annofree.apps.web.uploads import Limits

__all__ = ["CSP", "Guard", "RefusedError", "Rules"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CSP = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load: its own files, and no script or style inside of it."""

_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")
_SLOWEST = 2000  # bytes a second that a request may come at, after a while
_COOKIE, _OURS = "annofree", "x-annofree"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::\d*)?")


@dataclass(frozen=True)
class Rules:
    """What is refused.

    ``open_paths`` are those of other tools, which send no header of ours; what a browser sends is refused there.
    """

    # names and addresses that this server is called by, beside loopback's
    hosts: tuple[str, ...] = ()
    # needed from everybody, None for nobody
    token: str | None = None
    # whether any literal address may be called, for a server that listens on all
    any_address: bool = False
    # how large what is sent may be
    limits: Limits = field(default_factory=Limits)
    # of other tools
    open_paths: tuple[str, ...] = ()
    # to which files may be sent
    upload_paths: tuple[str, ...] = ("/api/images",)


class RefusedError(Exception):
    """A request that is refused, with the ``status`` and the ``words`` of the answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Guard:
    """An ASGI application before another, which asks the rules first."""

    def __init__(self, app: App, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # web sockets: there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        try:
            heads = _read_heads(scope)
            self._check(scope, heads)
            if place := self._find_login(scope):
                await answer.redirect(place, str(self.rules.token))
                return
            most = self._find_most(scope)
            if int(heads.get("content-length") or 0) > most:
                raise _too_large(most)
            await self.app(scope, _count(receive, most, self.rules.limits.patience), answer)
        except RefusedError as refusal:
            await answer.refuse(refusal.status, refusal.words)

    def _check(self, scope: Scope, heads: dict[str, str]) -> None:
        host = heads.get("host", "")
        if not self._is_ours(host):
            raise RefusedError(
                421, f"expected this server by its own name, got the host {host[:80]!r}; open it by the address that it printed"
            )
        origin, site = heads.get("origin"), heads.get("sec-fetch-site")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise RefusedError(403, f"expected a request of this page, got one of {origin[:80]!r}")
        path, method = str(scope["path"]), str(scope["method"])
        visits = path == "/" and method in _SAFE
        if site not in (None, "same-origin", "none") and not visits:
            raise RefusedError(403, f"expected a request of this page, got one that is {site[:20]}")
        self._check_token(scope, heads)
        if method in _SAFE:
            return
        if path in self.rules.open_paths:
            if origin is not None or site is not None:
                raise RefusedError(403, "expected a request of another tool, got one of a browser")
        elif heads.get(_OURS) != "1":
            raise RefusedError(403, "expected the header X-Annofree: 1 with what changes something, got none")

    def _is_ours(self, host: str) -> bool:
        name = _strip_port(host)
        if name in _LOOPBACK or name in self.rules.hosts:
            return True
        return self.rules.any_address and _is_address(name)

    def _check_token(self, scope: Scope, heads: dict[str, str]) -> None:
        token = self.rules.token
        if token is None:
            return
        given = [*_list_given(heads), dict(_read_query(scope)).get("token", "")]
        if not any(secrets.compare_digest(one.encode(), token.encode()) for one in given if one):
            raise RefusedError(401, "expected the token of this server; open the address that it printed")

    def _find_login(self, scope: Scope) -> str | None:
        """Where to go with the token in a cookie and no more in the address."""
        pairs = _read_query(scope)
        if self.rules.token is None or scope["method"] != "GET" or "token" not in dict(pairs):
            return None
        rest = urlencode([(key, value) for key, value in pairs if key != "token"])
        path = "/" + quote(str(scope["path"]).lstrip("/\\"))
        return path + (f"?{rest}" if rest else "")

    def _find_most(self, scope: Scope) -> int:
        limits = self.rules.limits
        return limits.upload_bytes if scope["path"] in self.rules.upload_paths else limits.json_bytes


class _Answer:
    """Sends an answer on, with the headers of every one."""

    def __init__(self, send: Send) -> None:
        self._send, self._begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            there = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in there]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self._send(message)

    async def refuse(self, status: int, words: str) -> None:
        """Say in one sentence what was expected; nothing more where the answer has begun."""
        if not self._begun:
            body = json.dumps({"error": words}).encode()
            await self._answer(status, body, [(b"content-type", b"application/json"), (b"connection", b"close")])

    async def redirect(self, place: str, token: str) -> None:
        """Go to a place with the token in a cookie."""
        cookie = f"{_COOKIE}={base64.urlsafe_b64encode(token.encode()).decode()}; HttpOnly; SameSite=Strict; Path=/"
        await self._answer(303, b"", [(b"location", place.encode()), (b"set-cookie", cookie.encode())])

    async def _answer(self, status: int, body: bytes, heads: list[tuple[bytes, bytes]]) -> None:
        heads = [*heads, (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": status, "headers": heads})
        await self({"type": "http.response.body", "body": body})


def _count(receive: Receive, most: int, patience: float) -> Receive:
    """Read on until more came than may, or nothing for too long, or so little that it would hold a place for ever."""
    read = 0
    ended = False
    began = time.monotonic()

    async def counted() -> Message:
        nonlocal read, ended
        if ended:  # only the end of the connection is waited for
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), patience)
        except TimeoutError:
            raise RefusedError(408, f"expected some of the request within {patience:g} s, and nothing came") from None
        read += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if read > most:
            raise _too_large(most)
        if not ended and time.monotonic() - began > patience + read / _SLOWEST:
            raise RefusedError(408, f"expected at least {_SLOWEST / 1000:g} kB a second, got less; send it again")
        return message

    return counted


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"expected at most {most / 1e6:g} MB at once, got more; send less at a time")


def _read_heads(scope: Scope) -> dict[str, str]:
    """The headers by name; raises for two of one name where that could be understood in two ways."""
    heads: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in heads and key in ("host", "origin", "content-length", "authorization", _OURS):
            raise RefusedError(400, f"expected one header {key}, got several")
        heads[key] = value.decode("latin-1")
    length = heads.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise RefusedError(400, "expected the header content-length as a number")
    return heads


def _list_given(heads: dict[str, str]) -> list[str]:
    """The tokens that a request has: in a cookie, as a bearer, or as the password of another tool."""
    kind, _, value = heads.get("authorization", "").partition(" ")
    given = [value.strip()] if kind.lower() == "bearer" else []
    if kind.lower() == "basic":
        given.append(_decode(value).partition(":")[2])
    try:
        cookie = SimpleCookie(heads.get("cookie", "")).get(_COOKIE)
    except Exception:
        return given
    return given if cookie is None else [*given, _decode(cookie.value)]


def _decode(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text.strip().replace("+", "-").replace("/", "_")).decode()
    except ValueError:
        return ""


def _read_query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _strip_port(host: str) -> str:
    """The name of a host header, in small letters, without its port; all of one that is not a name and a port.

    >>> _strip_port("LocalHost:8000"), _strip_port("[::1]:8000"), _strip_port("localhost:8000, evil.example")
    ('localhost', '::1', 'localhost:8000, evil.example')
    """
    host = host.strip().lower()
    found = _HOST.fullmatch(host)
    return host if found is None else found[1] or found[2] or ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
