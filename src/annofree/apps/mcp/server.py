"""The server that language models talk to: its tools, one at a time, with progress, and errors in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from annofree.apps.mcp.tools import Told, Tools
from annofree.errors import AnnofreeError
from annofree.io.callbacks import Callbacks
from annofree.io.files.paths import explain_os_error

__all__ = ["build_server"]

_ABOUT = (
    "Finds named things in images: boxes and masks, without any training. Call segment with a path and class names; call "
    "relabel to ask the same images for other names, which is fast; call report for a page that people can look at. Paths are "
    "below the root that doctor tells. Answers are counts, paths of files, and a small image."
)

ImagesPath = Annotated[str, Field(description="path of an image or of a folder of images, below the root")]
Names = Annotated[str, Field(description='class names by commas, with synonyms: "dog, cat: kitten | tabby"')]
RunPath = Annotated[str, Field(description="path of a run that segment or relabel wrote, below the root")]
OutPath = Annotated[str, Field(description="path of the folder to write to, below the root; the same call resumes there")]
Method = Annotated[str | None, Field(description="method; by default the preset's own")]
LeastScore = Annotated[float, Field(description="leave out what scores less", ge=0, le=1)]


def build_server(root: Path, preset: str, device: str = "auto") -> MCPServer:
    """Build the server for one folder; raises InputError where there is none, or no such preset."""
    tools, turn = Tools(root, preset, device), anyio.CapacityLimiter(1)
    server = MCPServer("annofree", instructions=_ABOUT)

    async def do(work: Callable[[], Told]) -> list[Any]:
        told = await anyio.to_thread.run_sync(lambda: _explain(work), limiter=turn)
        facts = json.dumps(told.facts, ensure_ascii=False)
        return [facts] if told.picture is None else [facts, Image(data=told.picture, format="jpeg")]

    @server.tool(structured_output=False)
    async def segment(
        ctx: Context,
        images: ImagesPath,
        classes: Names,
        out: OutPath = "annofree-run",
        method: Method = None,
        min_score: LeastScore = 0.0,
    ) -> list[Any]:
        """Find the named things in an image or a folder: boxes and masks in COCO's format, and overlays to look at."""
        heard = _follow(ctx)
        return await do(lambda: tools.segment(images, classes, out, heard, method=method, min_score=min_score))

    @server.tool(structured_output=False)
    async def relabel(ctx: Context, run: RunPath, classes: Names, out: OutPath = "annofree-relabelled") -> list[Any]:
        """Ask the images of a run for other names, without looking at them again: much faster than segment."""
        heard = _follow(ctx)
        return await do(lambda: tools.relabel(run, classes, out, heard))

    @server.tool(structured_output=False)
    async def report(run: RunPath) -> list[Any]:
        """Write an HTML page of a run with its images, counts, scores and failures; returns its path."""
        return await do(lambda: tools.report(run))

    @server.tool(structured_output=False)
    async def doctor() -> list[Any]:
        """Say what this machine has: devices, memory, models, the root of all paths, and what each preset would fetch."""
        return await do(tools.describe)

    return server


def _explain(work: Callable[[], Told]) -> Told:
    """What was refused as one sentence that a model can act on."""
    try:
        return work()
    except AnnofreeError as refusal:
        raise ToolError(str(refusal)) from None
    except OSError as problem:
        raise ToolError(explain_os_error(problem)) from None


def _follow(ctx: Context) -> Callbacks:
    """Tell the client of progress; called from the thread of the work."""

    def tell(done: int, total: int) -> None:
        anyio.from_thread.run(ctx.report_progress, done, total, "images")

    return Callbacks(on_progress=tell)
