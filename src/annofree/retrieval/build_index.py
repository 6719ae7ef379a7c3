"""Making an index of images, shard by shard: what was done stays done, whenever the work is stopped.

A shard stands for a fixed stretch of the inputs and is there as soon as its ids are, which are written last.  So the same
command goes on after a kill at any moment, and ends with the files that an undisturbed run of it writes: byte for byte on the
same machine, with the same versions and threads, up to rounding elsewhere.
Each shard has a file of checksums, of its own files and of its images: what was cut, or changed since, is embedded again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.files.checksums import add_checksum
from annofree.io.files.lock import hold_lock
from annofree.io.image_sources import ImageSource
from annofree.io.images import silence_pillow
from annofree.io.regular import require_regular
from annofree.io.settings_diff import find_first_change, list_differences
from annofree.retrieval.embed import Embed, EmbeddedBatch, Embedder, WholeEncoder, embed_here
from annofree.retrieval.index import FORMAT, name_embeddings, name_ids, read_manifest
from annofree.retrieval.index_checks import explain_damage, name_checksums, read_held, write_checksums

__all__ = ["build_index"]

SHARD = 4096  # inputs; of what is done, less than this is lost by a kill
_TEMPORARY = (".embeddings-*", ".ids-*", ".inputs-*", ".manifest-*", ".checksums-*")


def build_index(
    source: ImageSource,
    folder: Path,
    clip: WholeEncoder,
    *,
    batch_size: int = 32,
    shard_size: int = SHARD,
    threads: int = 4,
    about: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    embed: Embed | None = None,
) -> dict[str, Any]:
    """Embed all images of a source into an index, or go on with it, and return its manifest.

    A shard stands for ``shard_size`` inputs.  At most about twice ``batch_size`` images are in memory.  ``about`` is kept in
    the manifest.  An image that cannot be read is left out and named in the manifest's ``failed``, with the reason by id, and
    so is one of which the model makes no finite embedding; what else the model raises ends the run, which may go on later.
    ``on_progress`` gets the inputs dealt with, from those of an earlier call on, and their number; ``on_note`` is told where
    files or images of an earlier call changed, which are embedded again.  ``embed`` does the work in the place of this process.

    Raises InputError for a folder with an index of other inputs, of another model or of other settings, naming the
    difference, and for a batch, shard or number of threads below 1.
    """
    for what, value in (("batch", batch_size), ("shard", shard_size), ("number of threads", threads)):
        if value < 1:
            raise InputError(f"expected a {what} of at least 1, got {value}")
    make_folder(folder)
    if folder.resolve() in {Path(given).resolve() for given in source.inputs}:
        raise InputError(f"expected another folder for the index than {folder}, which has the images; choose another --out")
    with hold_lock(folder / "lock", f"expected one call at a time to index to {folder}; wait for the other"):
        return _build(source, folder, clip, batch_size, shard_size, threads, about, on_progress, on_note, embed)


def _build(
    source: ImageSource,
    folder: Path,
    clip: WholeEncoder,
    batch_size: int,
    shard_size: int,
    threads: int,
    about: Mapping[str, Any] | None,
    on_progress: Callable[[int, int], None] | None,
    on_note: Callable[[str], None] | None,
    embed: Embed | None,
) -> dict[str, Any]:
    _clean(folder)
    settings = _settings(source, clip, shard_size, about)
    _begin(folder, settings)
    total = _keep_inputs(folder / "inputs.txt", source.list_ids())
    root = Path(settings["root"])
    held = [read_held(folder, n, ids, root) for n, ids in enumerate(_stretches(folder / "inputs.txt", shard_size))]
    _tell_changes(folder, held, on_note)
    known = sum(len(one["ids"]) + len(one["failed"]) for one in held if one)
    progress = _Progress(total, on_progress, known)
    progress.advance(0)
    failed: dict[str, str] = {}
    rows: list[int] = []
    own = (ids for one, ids in zip(held, _stretches(folder / "inputs.txt", shard_size), strict=True) if not one)
    embed = embed or partial(embed_here, Embedder(root, clip, batch_size, threads))
    with silence_pillow(), closing(embed(own, progress.count)) as batches:
        for number, ids in enumerate(_stretches(folder / "inputs.txt", shard_size)):
            shard = held[number] or _write_shard(folder, number, _take(batches, len(ids)))
            rows.append(len(shard["ids"]))
            failed |= shard["failed"]
    manifest = settings | {"complete": True, "inputs": total, "rows": sum(rows), "shards": rows, "failed": failed}
    write_json(folder / "manifest.json", add_checksum(manifest), indent=1, ascii_only=True)
    return manifest


def _take(batches: Iterator[EmbeddedBatch], inputs: int) -> list[EmbeddedBatch]:
    """The batches of so many inputs."""
    taken = list[EmbeddedBatch]()
    while sum(batch.inputs for batch in taken) < inputs:
        taken.append(next(batches))
    return taken


def _tell_changes(folder: Path, held: list[dict[str, Any] | None], on_note: Callable[[str], None] | None) -> None:
    """Say which shards were whole once and are embedded again."""
    changed = [str(n) for n, one in enumerate(held) if one is None and (folder / name_checksums(n)).exists()]
    if changed and on_note:
        on_note(f"files or images of shards {', '.join(changed[:9])} changed since they were indexed; they are embedded again")


@dataclass
class _Progress:
    """How many inputs were dealt with, told as they are."""

    total: int
    tell: Callable[[int, int], None] | None
    done: int = 0

    def count(self, batch: EmbeddedBatch) -> EmbeddedBatch:
        """Count the inputs of a batch, and return it."""
        self.advance(batch.inputs)
        return batch

    def advance(self, inputs: int) -> None:
        """Count inputs."""
        self.done += inputs
        if self.tell:
            self.tell(self.done, self.total)


def _write_shard(folder: Path, number: int, batches: Sequence[EmbeddedBatch]) -> dict[str, Any]:
    """Write down what was made of a stretch of the inputs, the ids last, for they say that all is there."""
    kept = [id for batch in batches for id in batch.ids]  # noqa: A001
    failed = {id: why for batch in batches for id, why in batch.failed.items()}  # noqa: A001
    held = {"ids": kept, "failed": dict(sorted(failed.items()))}
    (folder / name_ids(number)).unlink(missing_ok=True)  # of a shard that was not whole
    if kept:
        vectors = np.concatenate([batch.vectors for batch in batches])
        write_atomic(folder / name_embeddings(number), lambda path: _save(path, vectors))
    write_checksums(folder, number, held, {id: known for batch in batches for id, known in batch.known.items()})  # noqa: A001
    write_json(folder / name_ids(number), held, ascii_only=True)
    return held


def _clean(folder: Path) -> None:
    """Remove what a run left that was killed while it wrote."""
    for pattern in _TEMPORARY:
        for left in folder.glob(pattern):
            left.unlink()


def _save(path: Path, vectors: npt.NDArray[np.float16]) -> None:
    with path.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def _settings(source: ImageSource, clip: WholeEncoder, shard_size: int, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What has to be the same for a run to go on, as JSON holds it."""
    settings = {
        "format": FORMAT,
        "model": clip.provenance,
        "dimension": clip.dimension,
        "dtype": "float16",
        "shard_size": shard_size,
        "root": str(source.root),
        "about": dict(about or {}),
    }
    return dict(json.loads(json.dumps(settings)))


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Write a manifest that says that the index is not complete, or check that the one there is of the same settings."""
    path = folder / "manifest.json"
    if not path.exists():
        write_json(path, add_checksum(settings | {"complete": False}), indent=1, ascii_only=True)
        return
    before = read_manifest(folder)
    other = list(list_differences({key: before.get(key) for key in settings}, settings))
    if other:
        raise InputError(f"the index in {folder} is another's: {'; '.join(other)}; ask as before, or give another --out")


def _keep_inputs(path: Path, ids: Iterable[str]) -> int:
    """Write the inputs down or compare them with those that were, and count them; raises InputError where there are none."""
    if path.exists():
        return _compare(path, ids)
    total = 0

    def write(temporary: Path) -> None:
        nonlocal total
        with temporary.open("w", encoding="ascii", newline="\n") as lines:
            for id in ids:  # noqa: A001
                lines.write(json.dumps(id) + "\n")
                total += 1
        if not total:
            raise InputError("expected images or tars of images, found none in what was given; name another folder")

    write_atomic(path, write)
    return total


def _compare(path: Path, ids: Iterable[str]) -> int:
    with explain_damage(path), require_regular(path).open(encoding="ascii") as lines:
        change = find_first_change(map(json.loads, lines), ids)
    if change:
        raise InputError(f"the index in {path.parent} is of other images: {change}; give those of before, or another --out")
    with path.open(encoding="ascii") as lines:
        return sum(1 for _ in lines)


def _stretches(path: Path, size: int) -> Iterator[list[str]]:
    with path.open(encoding="ascii") as lines:
        while stretch := [json.loads(line) for line in islice(lines, size)]:
            yield stretch
