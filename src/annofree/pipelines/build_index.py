"""Images in, an index of their embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.runs.clock import StageTimer, Timings

if TYPE_CHECKING:
    from annofree.io.image_sources import ImageSource
    from annofree.runs.engines.ray_pool import Cluster

__all__ = ["SQUARES", "IndexSummary", "build_index"]

SQUARES = ("squash", "crop")
"""How an image becomes a square."""


@dataclass(frozen=True)
class IndexSummary:
    """An index: its folder, its manifest, and where the time of this call went."""

    folder: Path
    manifest: Mapping[str, Any]
    timings: Timings

    @property
    def failed(self) -> Mapping[str, str]:
        """Why images could not be embedded, by id."""
        failed: Mapping[str, str] = self.manifest["failed"]
        return failed


def build_index(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    models: str = "fast",
    whole: str | None = None,
    batch: int = 32,
    shard: int = 4096,
    threads: int = 4,
    device: str = "auto",
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    callbacks: Callbacks = Callbacks(),
    clock: StageTimer | None = None,
) -> IndexSummary:
    """Embed images for ``retrieve``; the same call resumes after a kill.

    ``inputs`` are folders, lists of paths (.txt), tars or images, or addresses of object storage (s3://bucket/photos).
    ``models`` is a CLIP, or a preset for its CLIP; ``whole`` how it makes an image a square: squash, crop, or by default as the
    model is used.  ``batch`` images are embedded together, ``threads`` are read at once, and a ``shard`` of images is written
    at a time.  ``engine``, ``address`` and ``workers`` are those of ``segment``: a worker embeds a shard.

    Raises InputError for inputs that are not there, for unknown models, and for a folder with another index; MissingError
    without weights.

    >>> build_index("nowhere", "index", models="tiny")
    Traceback (most recent call last):
    annofree.errors.InputError: expected a folder, a list, a tar or an image, but nowhere is not there; check the spelling
    """
    for name, value in (("batch", batch), ("shard", shard), ("threads", threads)):
        check_range(name, value, 1)
    if whole not in (None, *SQUARES):
        raise build_unknown_error("way to make a square", str(whole), SQUARES)
    from annofree.io.files.remote import RemoteSource, find_url, refuse_url
    from annofree.io.image_sources import Source
    from annofree.methods.load_clip import load_clip
    from annofree.pipelines.segment import parse_engine

    cluster = parse_engine(engine, address, workers)
    refuse_url(out)

    clock, first = clock or StageTimer.started(), [-1]

    def count(done: int, total: int) -> None:
        if first[0] < 0:
            first[0] = done
            clock.switch("other")  # loading is over
        callbacks.on_progress(done, total)

    given = [inputs] if isinstance(inputs, str | Path) else inputs
    urls = [url for place in given if (url := find_url(str(place)))]
    source = RemoteSource(urls) if urls else Source([Path(place) for place in given], exclude=Path(out))
    load: Callable[[], Any] = partial(load_clip, models, device, {} if whole is None else {"whole": whole})
    how: dict[str, Any] = {"batch_size": batch, "shard_size": shard, "threads": threads, "on_progress": count}
    how |= {"about": {"models": models, "whole": whole}, "on_note": callbacks.on_note}
    if cluster is None:
        manifest = _write_here(source, Path(out), load(), how)
    else:
        manifest = _write_there(source, Path(out), load, cluster, device, callbacks, how)
    for remark in source.others.format_lines():
        callbacks.on_note(remark)
    for name, why in manifest["failed"].items():
        callbacks.on_failure(name, why if name in why else f"{name}: {why}")
    return IndexSummary(Path(out), manifest, clock.summarize(manifest["inputs"] - first[0], len(manifest["failed"])))


def _write_here(source: ImageSource, out: Path, clip: Any, how: dict[str, Any]) -> dict[str, Any]:
    """Embed the images in this process."""
    from annofree.retrieval.build_index import build_index as write_index  # torch, which a wrong call does not need

    return write_index(source, out, clip, **how)


def _write_there(
    source: ImageSource,
    out: Path,
    load: Callable[[], Any],
    cluster: Cluster,
    device: str,
    callbacks: Callbacks,
    how: dict[str, Any],
) -> dict[str, Any]:
    """Let the workers of a cluster embed the images."""
    from annofree.pipelines.segment import choose_device
    from annofree.retrieval.build_index import build_index as write_index
    from annofree.runs.engines.index_engine import IndexEngine

    sizes = how["batch_size"], how["threads"]
    with IndexEngine(cluster, choose_device(device, cluster), load, source.root, *sizes, callbacks) as engine:
        return write_index(source, out, engine.clip, **how, embed=engine.embed)
