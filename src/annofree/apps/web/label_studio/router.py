"""The addresses that Label Studio calls: ``/setup``, ``/predict``, ``/webhook``; ``/health`` is the server's own.

Only JSON is taken, so that no page of another site can send a form here; with a token, HTTP Basic has it as the password.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, HTTPException

from annofree.apps.web.label_studio.backend import Backend

__all__ = ["PATHS", "build_router"]

PATHS = ("/setup", "/predict", "/webhook")
"""What the router answers."""


def build_router(backend: Backend, token: str | None = None) -> APIRouter:
    """Build the router; with a ``token``, each call has to bring it, as a bearer or as the password of HTTP Basic."""

    def check_token(authorization: Annotated[str, Header()] = "") -> None:
        if token is not None and not hmac.compare_digest(_read_secret(authorization).encode(), token.encode()):
            raise HTTPException(
                401,
                "expected the token of this server, as a bearer or as the password of HTTP Basic",
                {"WWW-Authenticate": 'Basic realm="annofree"'},
            )

    router = APIRouter(dependencies=[Depends(check_token)])

    @router.post("/setup")
    def set_up(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return backend.set_up(body)

    @router.post("/predict")
    def predict(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return backend.predict(body)

    @router.post("/webhook", status_code=201)
    def take(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return backend.take(body)

    return router


def _read_secret(authorization: str) -> str:
    """The token of an Authorization header, an empty text where there is none."""
    kind, _, rest = authorization.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2] if kind.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
