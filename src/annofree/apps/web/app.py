"""The server's application: routes of the page, of images and answers, of what people correct, and of exports."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import UploadFile
from starlette.middleware.gzip import GZipMiddleware

from annofree.apps.web.explain_page import EXPLAIN_CSP, write_explain_page
from annofree.apps.web.export_files import make_export
from annofree.apps.web.image_list import Listed
from annofree.apps.web.pictures import paint_labels, paint_segments
from annofree.apps.web.requests import add_error_answers, read_fields, refuse
from annofree.apps.web.security import Guard, Rules
from annofree.apps.web.worker import BusyError
from annofree.apps.web.workspace import Workspace
from annofree.errors import InputError
from annofree.runs.corrections.answers import Answer
from annofree.runs.corrections.journal import OutdatedError
from annofree.structures import Vocabulary

__all__ = ["STATIC", "build_app"]

STATIC = Path(__file__).with_name("static")
"""The folder of the page's own files."""


class _ImageId(Convertor[str]):
    """Ids of images in addresses: any text, for a name may hold slashes, and even ends of lines."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("image", _ImageId())
_TASKS = ("semantic", "panoptic")
_MOST_CHANGED = 1000
_UPLOADS = 4  # that are read at a time


def build_app(workspace: Workspace, rules: Rules, add_more: Callable[[FastAPI], object] = lambda app: None) -> Guard:
    """The application of a workspace behind its rules; ``add_more`` adds routes of other tools."""

    @asynccontextmanager
    async def close_at_end(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(workspace.service.close)
        workspace.close()

    app = FastAPI(title="annofree", docs_url=None, redoc_url=None, openapi_url=None, lifespan=close_at_end)
    add_error_answers(app)
    _add_page(app, workspace)
    _add_images(app, workspace)
    _add_answers(app, workspace)
    _add_acts(app, workspace)
    add_more(app)
    if STATIC.is_dir():
        mimetypes.add_type("text/javascript", ".js")
        app.mount("/static", GZipMiddleware(_OwnFiles(directory=STATIC)))
    return Guard(app, rules)


class _OwnFiles(StaticFiles):
    """Files of the page, which browsers may keep as long as they ask whether they changed."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        answer = super().file_response(*arguments, **more)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def _add_page(app: FastAPI, workspace: Workspace) -> None:
    exporting = asyncio.Lock()

    @app.get("/")
    async def show_page() -> Response:
        page = STATIC / "index.html"
        return FileResponse(page) if page.is_file() else refuse(404, "expected the page's files, and they are not installed")

    @app.get("/api/workspace")
    async def describe() -> Any:
        return await run_in_threadpool(workspace.describe)

    @app.put("/api/classes")
    async def change_classes(request: Request) -> Any:
        held = await read_fields(request, "classes")
        await run_in_threadpool(workspace.change_classes, held["classes"])
        return await run_in_threadpool(workspace.describe)

    @app.put("/api/settings")
    async def change_settings(request: Request) -> Any:
        held = await read_fields(request)
        await run_in_threadpool(workspace.change_settings, held)
        return await run_in_threadpool(workspace.describe)

    @app.get("/api/revisions")
    async def list_changes(since: int = Query(0, ge=0)) -> Any:
        journal = workspace.journal
        changed = journal.list_changed(since)[-_MOST_CHANGED:]
        return {"revision": journal.revision, "version": workspace.version, "images": changed}

    @app.get("/api/export")
    async def export(format: str = Query("coco", max_length=40)) -> Response:  # noqa: A002
        if exporting.locked():
            raise BusyError(1, retry_after=5)
        async with exporting:
            made = await run_in_threadpool(make_export, workspace, format)
        return FileResponse(
            made.path, media_type=made.kind, filename=made.name, background=BackgroundTask(run_in_threadpool, made.remove)
        )


def _add_images(app: FastAPI, workspace: Workspace) -> None:
    turn = asyncio.Semaphore(_UPLOADS)

    @app.get("/api/images")
    async def list_images(
        offset: int = Query(0, ge=0),
        limit: int = Query(60, ge=1, le=500),
        order: str = "name",
        state: str = "all",
        class_: str = Query("", alias="class", max_length=200),
        q: str = Query("", max_length=200),
    ) -> Any:
        return await run_in_threadpool(
            lambda: workspace.list_page(offset=offset, limit=limit, order=order, state=state, name=class_, text=q)
        )

    @app.post("/api/images")
    async def upload(request: Request) -> Any:
        limits = workspace.opening.limits
        added: list[str] = []
        rejected: list[dict[str, str]] = []
        async with turn, request.form(max_files=limits.files, max_fields=10) as form:
            files = [one for one in form.getlist("files") if isinstance(one, UploadFile)]
            if not files:
                raise InputError("expected images in the field files, got none")
            for file in files:
                name = str(file.filename or "image").encode(errors="replace").decode()
                try:
                    added.append(await run_in_threadpool(workspace.upload, name, await file.read()))
                except InputError as problem:
                    rejected.append({"file": name[:200], "error": str(problem)})
        return JSONResponse({"added": added, "rejected": rejected}, 200 if added else 400)

    @app.get("/api/images/{id_:image}/thumbnail")
    async def show_thumbnail(id_: str, request: Request) -> Response:
        return await _send_picture(workspace, workspace.pictures.make_thumbnail, id_, request)

    @app.get("/api/images/{id_:image}/picture")
    async def show_picture(id_: str, request: Request) -> Response:
        return await _send_picture(workspace, workspace.pictures.make_picture, id_, request)


async def _send_picture(workspace: Workspace, make: Callable[[Any], bytes], id_: str, request: Request) -> Response:
    """A JPEG that browsers may keep, as long as they ask whether it changed."""
    source = await run_in_threadpool(lambda: workspace.open_source(workspace.find(id_)))
    tag = f'"{sha256(source.key.encode(errors="surrogatepass")).hexdigest()[:32]}"'
    heads = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=heads)
    return Response(await run_in_threadpool(make, source), media_type="image/jpeg", headers=heads)


def _add_answers(app: FastAPI, workspace: Workspace) -> None:
    @app.get("/api/images/{id_:image}/answer")
    async def show_answer(id_: str) -> Any:
        one = workspace.find(id_)
        answer = await _find_answer(workspace, one)
        return await run_in_threadpool(workspace.show, one, answer)

    @app.get("/api/images/{id_:image}/labels.png")
    async def show_labels(id_: str, task: str = "semantic") -> Response:
        one = workspace.find(id_)
        if task not in _TASKS:
            raise InputError(f"expected the task semantic or panoptic, got {task[:40]!r}")
        return Response(await workspace.service.ask(lambda: _draw_labels(workspace, one, task)), media_type="image/png")

    @app.post("/api/images/{id_:image}/segment")
    async def segment(id_: str, request: Request) -> Any:
        one, held = workspace.find(id_), await read_fields(request)
        points, box = held.get("points") or [], held.get("box")
        if not isinstance(points, list) or not isinstance(box, list | None):
            raise InputError("expected points as a list and a box as a list or null")
        source = await run_in_threadpool(workspace.open_source, one)
        drawn = await workspace.service.ask(lambda: workspace.service.now.segment(source, points, box))
        return await run_in_threadpool(drawn.to_json)

    @app.get("/api/images/{id_:image}/explain")
    async def explain(id_: str, class_: str = Query("", alias="class", max_length=200)) -> Response:
        one = workspace.find(id_)
        names = Vocabulary.of(class_) if class_ else workspace.vocabulary
        if names is None:
            raise InputError("expected the names of some classes, got none; type them first")
        source = await run_in_threadpool(workspace.open_source, one)
        how = await workspace.service.ask(lambda: workspace.service.now.explain(source, names))
        page = await run_in_threadpool(write_explain_page, how)
        return Response(page, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": EXPLAIN_CSP})


async def _find_answer(workspace: Workspace, one: Listed) -> Answer:
    """What is known of an image, or what the method says when it is its turn."""
    found = await run_in_threadpool(workspace.find_answer, one)
    if found is None and one.failed is not None:
        raise InputError(f"expected an image that can be read, but {one.id[:100]} failed: {one.failed}")
    return found if found is not None else await workspace.service.ask(lambda: workspace.ask_machine(one))


def _draw_labels(workspace: Workspace, one: Listed, task: str) -> bytes:
    vocabulary = workspace.vocabulary
    if vocabulary is None:
        raise InputError("expected the names of some classes, got none; type them first")
    found = workspace.service.now.draw_maps(workspace.open_source(one), vocabulary, task)
    if found.panoptic is not None:
        segments = found.panoptic
        return paint_segments(
            segments.segments, {info.id: segments.names[info.class_id] for info in segments.infos}, vocabulary.names
        )
    if found.label_map is None:
        raise InputError(f"expected a method for the task {task}, got none; choose another preset")
    return paint_labels(found.label_map, vocabulary.names)


def _add_acts(app: FastAPI, workspace: Workspace) -> None:
    async def do(id_: str, work: Callable[[Listed, Answer], None]) -> Any:
        one = workspace.find(id_)
        answer = await _find_answer(workspace, one)
        try:
            await run_in_threadpool(work, one, answer)
        except OutdatedError as problem:
            return refuse(409, str(problem), answer=await run_in_threadpool(workspace.show, one, answer))
        return await run_in_threadpool(workspace.show, one, answer)

    @app.post("/api/images/{id_:image}/acts")
    async def act(id_: str, request: Request) -> Any:
        held = await read_fields(request, "acts", "revision")
        return await do(id_, lambda one, answer: workspace.act(one, answer, held["acts"], held["revision"]))

    def add_step(way: str) -> Callable[[str, Request], Awaitable[Any]]:
        async def step(id_: str, request: Request) -> Any:
            held = await read_fields(request) if request.headers.get("content-type") else {}
            return await do(id_, lambda one, answer: workspace.take_step(one, way, held.get("revision")))

        return step

    for way in ("undo", "redo"):
        app.post(f"/api/images/{{id_:image}}/{way}")(add_step(way))
