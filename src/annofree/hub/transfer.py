"""One file from the hub into the Hugging Face cache by plain HTTP: it goes on where it stopped, and tells how far it is.

Xet, the client's other transport, is left out: it begins anew after a break, and is silent for minutes where its servers cannot
be reached.  Bytes are put where the client keeps them (``blobs/ETAG``), and the client makes its own links to them.
"""

from __future__ import annotations

import errno
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from annofree.hub.cards import format_size

__all__ = ["StrangeAnswerError", "find_cache_folder", "find_commit", "measure_partial", "transfer_file"]

_TRIES = 5  # in a row that bring nothing
_PAUSE = 1.0  # s, before the second try; doubled for each later one, up to 8


class StrangeAnswerError(Exception):
    """What answers is not the hub: a login page of the network, or a proxy."""


def find_cache_folder() -> Path:
    """The Hugging Face cache: HF_HUB_CACHE, or that in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_commit(hub: str, name: str, revision: str, **more: Any) -> str:
    """Return the commit that a revision of a repository is now; raises what the client does, and StrangeAnswerError."""
    return str(_look(hub, name, revision, **more).commit_hash)


def transfer_file(hub: str, name: str, revision: str, what: str) -> Path:
    """Bring one file of a repository into the cache, unless it is there, and return its place.

    ``what`` is what it is called while it comes.  Raises what the client does, OSError, and StrangeAnswerError.
    """
    from huggingface_hub import constants, hf_hub_download

    if not constants.HF_HUB_OFFLINE:
        about = _look(hub, name, revision)
        blob = _find_blob(hub, about.etag)
        with _one_at_a_time(hub, about.etag):
            if not blob.exists():
                _bring(_find_url(hub, name, about.commit_hash), blob, about.size, what)
    return Path(hf_hub_download(hub, name, revision=revision, **_introduce()))


@cache
def _introduce() -> dict[str, Any]:
    """What the hub is told of who asks."""
    return {"library_name": "annofree", "library_version": version("annofree")}


def _find_url(hub: str, name: str, revision: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(hub, name, revision=revision)


def _look(hub: str, name: str, revision: str, **more: Any) -> Any:
    """Ask for commit, checksum and size of a file, once: the client itself would try again for half a minute, in silence."""
    from huggingface_hub import get_hf_file_metadata

    about = get_hf_file_metadata(_find_url(hub, name, revision), **_introduce(), **more)
    if not about.commit_hash or not re.fullmatch(r"[\w-][\w.-]*", about.etag or ""):  # it becomes the name of a file
        raise StrangeAnswerError
    return about


def _find_blob(hub: str, etag: str) -> Path:
    return find_cache_folder() / f"models--{hub.replace('/', '--')}" / "blobs" / etag


@contextmanager
def _one_at_a_time(hub: str, etag: str) -> Iterator[None]:
    """Hold the client's own lock of a file; who comes second waits, and finds it there.  Disks without locks have none."""
    from filelock import FileLock

    lock = FileLock(find_cache_folder() / ".locks" / f"models--{hub.replace('/', '--')}" / f"{etag}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except (NotImplementedError, OSError) as problem:
        if getattr(problem, "errno", None) not in (None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    try:
        yield
    finally:
        lock.release()


def measure_partial(hub: str) -> int:
    """Return how many bytes of unfinished files of a repository wait to be gone on with."""
    return sum(path.stat().st_size for path in _find_blob(hub, "x").parent.glob("*.incomplete"))


def _bring(url: str, blob: Path, size: int | None, what: str) -> None:
    """Write what an address holds to ``blob``; what came of it before a break, or a kill, stays and is gone on with."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as file:
        if size is not None and file.tell() > size:
            file.truncate(0)
        _refuse_full(partial, (size or 0) - file.tell())
        with _show(what, size, file.tell()) as bar:
            _persist(url, file, size, bar)
        held = file.tell()
    if size is not None and held != size:  # a whole answer, and another one: nothing of it can be gone on with
        partial.unlink()
        raise StrangeAnswerError
    partial.replace(blob)


def _refuse_full(place: Path, needed: int) -> None:
    if needed > shutil.disk_usage(place.parent).free:
        raise OSError(errno.ENOSPC, "No space left on device")


def _show(what: str, size: int | None, held: int) -> Any:
    """Return a bar on a terminal; elsewhere say it in a line, unless progress is silenced."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, tqdm

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        on = f", on from {format_size(held)}" if held else ""
        print(f"fetching {what} ({format_size(size or 0)}{on})", file=sys.stderr)
    bar: Any = tqdm  # has no types
    return bar(total=size, initial=held, desc=what, unit="B", unit_scale=True, disable=None)


def _persist(url: str, file: BinaryIO, size: int | None, bar: Any) -> None:
    """Append until the file is whole; a connection that breaks is made again, and given up after tries that bring nothing."""
    from huggingface_hub import errors

    tries = 0
    while size is None or file.tell() < size:
        before = file.tell()
        try:
            _append(url, file, bar)
            return
        except errors.HfHubHTTPError:
            raise
        except (errors.HTTPError, ConnectionError, TimeoutError):  # type: ignore[attr-defined]  # the HTTP client's
            tries = 1 if file.tell() > before else tries + 1
            if tries >= _TRIES:
                raise
            bar.set_postfix_str("broke off, trying again")
            time.sleep(min(8 * _PAUSE, _PAUSE * 2 ** (tries - 1)))


def _append(url: str, file: BinaryIO, bar: Any) -> None:
    """Ask for what is missing of a file and write it as it comes; a server that knows no ranges sends all of it again."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # typed by no export

    headers = build_hf_headers(**_introduce()) | {"Accept-Encoding": "identity"}
    if file.tell():
        headers["Range"] = f"bytes={file.tell()}-"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as answer:
        hf_raise_for_status(answer)
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise StrangeAnswerError
        bar.set_postfix_str("")
        if file.tell() and answer.status_code == 200:
            file.truncate(0)
            bar.reset()
        for block in answer.iter_bytes():  # as it comes: what waits for a block to be full is lost when the line breaks
            file.write(block)
            file.flush()
            bar.update(len(block))
