"""The addresses that Label Studio calls: ``/health``, ``/setup``, ``/predict``, ``/webhook``.

Who may call them is up to the server's rules: a token comes as the password of HTTP Basic, and no browser may.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request

from annofree.apps.web.label_studio.backend import Backend
from annofree.apps.web.label_studio.desk import Desk
from annofree.apps.web.label_studio.pictures import Pictures
from annofree.apps.web.requests import read_fields
from annofree.apps.web.workspace import Workspace

__all__ = ["add_label_studio", "add_routes", "find_pictures"]

_AT_ONCE = 8  # questions that are read or wait for the worker; the others wait before they take a thread


def add_label_studio(app: FastAPI, workspace: Workspace) -> None:
    """Let Label Studio ask the service of a workspace, and keep there what people submit."""
    add_routes(app, Backend(workspace.service, find_pictures(workspace), Desk(workspace)))


def find_pictures(workspace: Workspace) -> Pictures:
    """Where images of tasks are, by Label Studio's own variables of the environment; else local files are the workspace's.

    ``LABEL_STUDIO_URL``, ``LABEL_STUDIO_API_KEY``, and ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``.  Raises InputError for an
    address that is none.
    """
    asked = os.environ.get("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT")
    host, key = os.environ.get("LABEL_STUDIO_URL"), os.environ.get("LABEL_STUDIO_API_KEY")
    limit = workspace.opening.limits.upload_bytes
    return Pictures(Path(asked) if asked else workspace.root, host or None, key or None, limit)


def add_routes(app: FastAPI, backend: Backend) -> None:
    """Add the addresses; what is answered is up to ``backend``.  However many ask, the page has threads left."""
    turns = anyio.CapacityLimiter(_AT_ONCE)

    @app.get("/health")
    async def tell_health() -> Any:
        return {"status": "UP", "model_class": "annofree"}

    def add(path: str, answer: Callable[[dict[str, Any]], dict[str, Any]], status: int = 200) -> None:
        @app.post(path, status_code=status)
        async def ask(request: Request) -> Any:
            held = await read_fields(request)
            return await anyio.to_thread.run_sync(answer, held, limiter=turns)

    add("/setup", backend.set_up)
    add("/predict", backend.predict)
    add("/webhook", backend.take, 201)
