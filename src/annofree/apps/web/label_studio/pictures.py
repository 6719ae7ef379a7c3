"""Where a task's image is: below a folder, or at the one Label Studio that was named; nowhere else.

An address comes from whoever can write a task.  So paths are confined to the folder, links of files included, and of
addresses only those of the named Label Studio are fetched, without following a redirect to anywhere.
"""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from annofree.errors import ImageError, InputError

__all__ = ["Pictures"]

_LOCAL, _UPLOADS = "/data/local-files", "/data/upload/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_IN_PATH, _IN_QUERY = "/%~", "=&%/?~"  # signs that stay as they are, for the rest may be quoted already
_TIMEOUT = 30  # seconds
_PARTS = 3  # of a personal access token, which is fetched a short one for; others are sent as they are


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Answers as they are: a redirect is no image."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


@dataclass(frozen=True)
class Pictures:
    """Finds the images of tasks: below ``root``, and at the Label Studio ``host`` with its access token ``key``."""

    # folder that /data/local-files/?d= is relative to, Label Studio's LOCAL_FILES_DOCUMENT_ROOT; None to fetch these, too
    root: Path | None = None
    # address of Label Studio, such as http://localhost:8080; None to fetch nothing
    host: str | None = None
    # access token of a Label Studio account
    key: str | None = field(default=None, repr=False)
    # bytes of an image at most
    most: int = 100 << 20

    def __post_init__(self) -> None:
        if self.host is not None and _read_origin(urlsplit(self.host)) is None:
            raise InputError(f"expected the address of Label Studio such as http://localhost:8080, got {self.host!r:.80}")

    def find_file(self, address: str) -> Path | None:
        """The file below the folder that an address names, None where the image has to be fetched.

        Raises ImageError for a path that leads out of the folder, and for a file that is not there.
        """
        if self.root is None or _is_elsewhere(address, self.host) or not urlsplit(address).path.startswith(_LOCAL):
            return None
        name = (parse_qs(urlsplit(address).query).get("d") or [""])[-1]
        root = self.root.resolve()
        try:
            place = (root / name.lstrip("/")).resolve()
            there = place.is_relative_to(root) and place.is_file()
        except (OSError, ValueError):  # a name that no file can have
            there = False
        if not there:
            raise ImageError(f"expected an image below {root}, found none that is called {name!r:.200}")
        return place

    def fetch(self, address: str) -> bytes:
        """Fetch an image from Label Studio; raises ImageError for an address elsewhere, and for what cannot be had."""
        if self.host is None or _is_elsewhere(address, self.host):
            raise ImageError(
                f"expected an image in local files or at {self.host or 'a named Label Studio'}, got {address!r:.200}; "
                "set LABEL_STUDIO_URL, or add the images as local files"
            )
        parts = urlsplit(address)
        base = f"{parts.scheme}://{parts.netloc}" if parts.netloc else self.host.rstrip("/")
        query = f"?{quote(parts.query, _IN_QUERY)}" if parts.query else ""
        return self._request(base + quote(parts.path, _IN_PATH) + query, self._authorize())

    def _authorize(self) -> dict[str, str]:
        if not self.key or self.host is None:
            return {}
        if self.key.count(".") != _PARTS - 1:
            return {"Authorization": f"Token {self.key}"}
        asked = json.dumps({"refresh": self.key}).encode()
        answer = self._request(f"{self.host.rstrip('/')}/api/token/refresh/", {"Content-Type": "application/json"}, asked)
        try:
            return {"Authorization": f"Bearer {json.loads(answer)['access']}"}
        except (ValueError, KeyError, TypeError):
            raise ImageError(
                f"expected a token of {self.host} for LABEL_STUDIO_API_KEY, got another answer; renew it"
            ) from None

    def _request(self, url: str, headers: dict[str, str], data: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data, headers)  # noqa: S310 -- http or https of the named host, as was checked
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT) as answer:
                content: bytes = answer.read(self.most + 1)
        except (OSError, ValueError, HTTPException) as problem:
            raise ImageError(f"expected an image at {url:.200}, but it cannot be fetched: {problem}") from None
        if len(content) > self.most:
            raise ImageError(f"expected an image of at most {self.most} bytes at {url:.200}, it is larger")
        return content


def _is_elsewhere(address: str, host: str | None) -> bool:
    """Whether an address names another server than ``host``; a path alone is the host's."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return True
    if not parts.scheme and not parts.netloc:
        return not parts.path.startswith("/")
    return host is None or _read_origin(parts) != _read_origin(urlsplit(host))


def _read_origin(parts: SplitResult) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address, None for one that is no plain http or https."""
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    plain = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.username is None and port
    return (parts.scheme, str(parts.hostname), int(port or 0)) if plain else None
