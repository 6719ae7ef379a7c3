"""What requests hold, read with one sentence for each thing that is wrong, and errors as answers."""

from __future__ import annotations

import json
import logging
from typing import Any, NoReturn

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteError

from annofree.apps.web.security import RefusedError
from annofree.apps.web.worker import BusyError, LateError
from annofree.apps.web.workspace import NotFoundError
from annofree.errors import AnnofreeError, InputError
from annofree.io.files.paths import explain_os_error

__all__ = ["add_error_answers", "read_fields", "read_json", "refuse"]

_LOG = logging.getLogger("annofree.serve")


async def read_json(request: Request) -> Any:
    """The JSON of a request; raises InputError for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InputError(f"expected application/json, got {kind[:60] or 'no content-type'}")
    try:
        text = (await request.body()).decode("utf-8-sig")
        held = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(held, ensure_ascii=False).encode()  # half a sign, which no answer and no file could hold
        return held
    except (ValueError, RecursionError) as problem:
        raise InputError(f"expected JSON, got something else ({str(problem)[:80]})") from None


async def read_fields(request: Request, *needed: str) -> dict[str, Any]:
    """A JSON object that has some fields; raises InputError for any other."""
    held = await read_json(request)
    if not isinstance(held, dict) or not all(name in held for name in needed):
        wanted = f" with {' and '.join(needed)}" if needed else ""
        raise InputError(f"expected a JSON object{wanted}, got {str(held)[:60]}")
    return held


def refuse(status: int, words: str, **more: Any) -> JSONResponse:
    """An answer that says in one sentence what was expected."""
    return JSONResponse({"error": words, **more}, status)


def add_error_answers(app: FastAPI) -> None:
    """Answer each kind of error with its status and one sentence."""

    @app.exception_handler(RefusedError)
    async def _too_much(_: Request, problem: RefusedError) -> JSONResponse:
        answer = refuse(problem.status, problem.words)
        answer.headers["Connection"] = "close"
        return answer

    @app.exception_handler(BusyError)
    async def _busy(_: Request, problem: BusyError) -> JSONResponse:
        answer = refuse(429, str(problem))
        answer.headers["Retry-After"] = str(problem.retry_after)
        return answer

    @app.exception_handler(LateError)
    async def _late(_: Request, problem: LateError) -> JSONResponse:
        answer = refuse(503, str(problem))
        answer.headers["Retry-After"] = "5"
        return answer

    @app.exception_handler(AnnofreeError)
    async def _refused(_: Request, problem: AnnofreeError) -> JSONResponse:
        status = 404 if isinstance(problem, NotFoundError) else 400 if isinstance(problem, InputError) else 503
        return refuse(status, str(problem))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0] if problem.errors() else {}
        where = ".".join(str(part) for part in first.get("loc", ())[1:])
        return refuse(400, f"expected other parameters: {where[:60]}: {str(first.get('msg', 'wrong'))[:100]}")

    @app.exception_handler(StarletteError)
    async def _http(_: Request, problem: HTTPException) -> JSONResponse:
        return refuse(problem.status_code, f"expected another request: {str(problem.detail)[:200]}")

    @app.exception_handler(OSError)
    async def _disk(_: Request, problem: OSError) -> JSONResponse:
        _LOG.warning("%s", problem)
        return refuse(507, explain_os_error(problem))

    @app.exception_handler(Exception)
    async def _unknown(_: Request, problem: Exception) -> JSONResponse:
        _LOG.error("a request failed", exc_info=problem)
        return refuse(500, "expected an answer, but the server failed; its log says why")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
