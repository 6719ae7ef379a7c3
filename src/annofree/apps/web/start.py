"""Starting the server: what it is opened on, at which address, and who may ask."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.apps.web.options import PORT, Address, ServeOptions, choose_plan, is_loopback
from annofree.errors import InputError
from annofree.pipelines.plan import Plan
from annofree.pipelines.relabel import plan_again

if TYPE_CHECKING:
    from annofree.apps.web.security import Guard
    from annofree.apps.web.workspace import Opening

__all__ = ["find_socket", "open_app", "require_web", "run_server"]

_PORTS = 100  # that are tried
_OTHER_TOOLS = ("/predict", "/setup", "/webhook")
_CONNECTIONS = 512


def run_server(target: Path | None, options: ServeOptions, address: Address, say: Callable[[str], None]) -> None:
    """Serve a page on a run, a folder of images, or nothing yet, until it is stopped; ``say`` is told its address.

    Raises InputError for what cannot be opened or listened at, and where the extra ``web`` is not installed.
    """
    _require_folder(target)
    require_web()
    import uvicorn

    from annofree.io.images import silence_pillow

    with find_socket(address) as bound:
        app = open_app(target, options, address)
        port = bound.getsockname()[1]
        name = f"[{address.host}]" if ":" in address.host else address.host
        say(f"http://{name}:{port}/" + (f"?token={address.token}" if address.token else ""))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="on", http="h11",
            ws="none", limit_concurrency=_CONNECTIONS, timeout_keep_alive=10, timeout_graceful_shutdown=5,
        )  # fmt: skip
        with silence_pillow():
            uvicorn.Server(config).run(sockets=[bound])


def _require_folder(target: Path | None) -> None:
    if target is not None and not target.is_dir():
        raise InputError(f"expected the folder of a run, or one of images, got {target}; name the folder, or leave it out")


def require_web() -> None:
    """Raise InputError where the extra ``web`` is not installed."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as problem:
        raise InputError(
            f'expected {problem.name}, which serves the page, and it is not installed; pip install "annofree[web]"'
        ) from None


def find_socket(address: Address) -> socket.socket:
    """Listen at an address, at the next free port unless one is asked for; raises InputError where that cannot be."""
    ports = range(PORT, PORT + _PORTS) if address.port is None else [address.port]
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    why: OSError | None = None
    for port in ports:
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address.host, port))
            bound.listen(1024)
            return bound
        except OSError as problem:
            bound.close()
            why = problem
    other = "--host" if isinstance(why, socket.gaierror) or (why and why.errno == errno.EADDRNOTAVAIL) else "--port"
    asked = f"port {address.port}" if address.port is not None else f"a port from {PORT} to {PORT + _PORTS - 1}"
    raise InputError(
        f"expected to listen at {asked} of {address.host}, but it cannot be: {why and why.strerror}; choose another {other}"
    )


def open_app(
    target: Path | None, options: ServeOptions, address: Address, more: Callable[[Any], object] | None = None
) -> Guard:
    """The application for a run, a folder of images, or nothing yet."""
    from annofree.apps.web.app import build_app
    from annofree.apps.web.label_studio.router import add_label_studio
    from annofree.apps.web.security import Rules
    from annofree.apps.web.service import Service
    from annofree.apps.web.workspace import Workspace
    from annofree.runs.corrections.answers import find_workspace

    opening, plan = _open(target, options)
    plan.check()
    service = Service(
        plan,
        most=options.queue,
        timeout=options.timeout,
        memory=int(options.memory_mb * 2**20),
        kept=find_workspace(opening.folder) / "encodings",
    )
    try:
        workspace = Workspace(opening, service)
    except BaseException:
        service.close()
        raise
    if workspace.vocabulary is not None and not workspace.shows_run:
        vocabulary = workspace.vocabulary
        service.submit(lambda: service.now.load(vocabulary))  # while the browser opens
    own = (address.host.lower(), socket.gethostname().lower(), *(name.lower() for name in address.names))
    rules = Rules(
        own if not is_loopback(address.host) else tuple(name.lower() for name in address.names),
        address.token,
        any_address=not is_loopback(address.host),
        limits=opening.limits,
        open_paths=_OTHER_TOOLS,
    )
    return build_app(workspace, rules, more or (lambda app: add_label_studio(app, workspace)))


def _open(target: Path | None, options: ServeOptions) -> tuple[Opening, Plan]:
    """What the page is opened on, and who answers."""
    from annofree.apps.web.run_answers import OpenedRun
    from annofree.apps.web.uploads import Limits
    from annofree.apps.web.workspace import Opening
    from annofree.runs.store.chunks import Chunks

    limits = Limits(upload_bytes=int(options.max_upload_mb * 1e6), pixels=options.max_pixels)
    opening = Opening(options.out or Path("workspace"), "annofree", None, None, None, options.vocabulary, options.who, limits)
    default = Plan(("instance",), None, "default", "fast", "found", "auto", policy="answer")
    if target is None:
        return opening, choose_plan(default, options.method)
    _require_folder(target)
    if not Chunks(target).begun:
        return replace(opening, title=target.resolve().name, images=target), choose_plan(default, options.method)
    if options.out is not None and options.out.resolve() != target.resolve():
        raise InputError(f"expected no --out with a run, whose corrections stay in it, got {options.out}; leave it out")
    run = OpenedRun(target)
    plan = replace(plan_again(run.settings, (), tuple(run.asked.get("negatives", ())), None), wanted=("instance",))
    opened = replace(opening, folder=target, title=target.resolve().name, run=run, run_plan=plan)
    return opened, choose_plan(plan, options.method)
