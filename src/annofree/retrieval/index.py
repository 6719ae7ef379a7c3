"""An index of images: unit embeddings in shards, each row known by its number and by the id of its image.

    INDEX/
    ├── manifest.json           the model, the root of the ids, counts, what failed; a checksum of all that
    ├── inputs.txt              the ids of all images that were given, a JSON string a line
    ├── embeddings-00000.npy    (n, D) float16, unit vectors
    ├── ids-00000.json          the ids of its rows, and what failed among its inputs
    └── checksums-00000.json    sizes and checksums of these two, and of the images

Rows are numbered through all shards, from 0.  They are mapped into memory a chunk at a time, so that an index of any size is
searched in a few hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.io.files.checksums import take_checksum
from annofree.io.files.paths import confine_name
from annofree.io.read_json import read_json_object
from annofree.structures import FloatArray, IntArray

__all__ = ["FORMAT", "Index", "Shard", "name_embeddings", "name_ids", "read_manifest"]

FORMAT = "annofree index 1"
_MANIFEST = {"complete": bool, "root": str, "model": dict, "about": dict, "shard_size": int}
_CHUNK = 8192  # rows; 25 MB of float32 at D = 768
_UNIT = 1e-3  # how far from 1 the length of a unit vector may be once it was rounded to float16


def name_embeddings(number: int) -> str:
    """Return the name of a shard's embeddings."""
    return f"embeddings-{number:05}.npy"


def name_ids(number: int) -> str:
    """Return the name of a shard's ids."""
    return f"ids-{number:05}.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read an index's manifest; raises InputError when there is none, or it is something else."""
    path = folder / "manifest.json"
    try:
        manifest = read_json_object(path)
        if manifest["format"] != FORMAT:
            raise InputError(f"expected {FORMAT!r} in {path}, got {manifest['format']!r}; make the index again")
        manifest = take_checksum(manifest)
        wrong = [key for key, kind in _MANIFEST.items() if not isinstance(manifest[key], kind)]
        if wrong or not all(type(rows) is int and rows >= 0 for rows in manifest.get("shards", [])):
            raise ValueError(f"{wrong[0] if wrong else 'shards'} is of another kind")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(
            f"expected an index's manifest.json in {folder}, but it cannot be read: {problem}; make one with `annofree index`"
        ) from None
    return manifest


@dataclass(frozen=True)
class Shard:
    """Embeddings of one file, ``rows`` of ``dimension`` numbers of float16 or float32 from byte ``offset`` on.

    ``first`` is the number of its first row; ``ids`` reads the ids of its rows; ``unit`` tells that the vectors are unit.
    """

    path: Path
    first: int
    rows: int
    dimension: int
    dtype: np.dtype[Any]
    offset: int
    ids: Callable[[], Sequence[str]]
    unit: bool = True

    @classmethod
    def open(cls, path: Path, first: int, ids: Callable[[], Sequence[str]], *, unit: bool = True) -> Shard:
        """Look at the head of an .npy file; raises InputError unless it holds (N, D) float16 or float32."""
        try:
            held = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, TokenError) as problem:  # the head of a file is parsed as Python
            raise InputError(f"expected embeddings at {path}, but they cannot be read: {problem}") from None
        if held.ndim != 2 or held.dtype not in (np.float16, np.float32) or np.isfortran(held) or not held.shape[1]:
            raise InputError(f"expected embeddings (N, D) float16 or float32 in {path}, got {held.shape} {held.dtype}")
        return cls(path, first, len(held), held.shape[1], held.dtype, int(held.offset), ids, unit)

    def read_raw(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Map rows ``start`` to ``stop`` of this shard alone, as they are in the file; let go, they leave memory."""
        at = self.offset + start * self.dimension * self.dtype.itemsize
        return np.memmap(self.path, self.dtype, "r", at, (stop - start, self.dimension))

    def read_vectors(self, start: int, stop: int) -> FloatArray:
        """Read rows as float32; unless the shard is of unit vectors, rows that are not are made so."""
        return self._made_unit(self.read_raw(start, stop).astype(np.float32), np.arange(start, stop))

    def read_vectors_at(self, rows: IntArray) -> FloatArray:
        """Read some rows of this shard, counted from its own first one, as ``read_vectors`` does."""
        return self._made_unit(self.read_raw(0, self.rows)[rows].astype(np.float32), rows)

    def _made_unit(self, read: FloatArray, rows: IntArray) -> FloatArray:
        if not self.unit:
            lengths = np.sqrt(np.einsum("nd,nd->n", read, read, dtype=np.float64))
            if not np.isfinite(lengths).all():
                bad = rows[~np.isfinite(lengths)][0]
                raise InputError(f"expected finite numbers in {self.path}, got others in row {bad}; embed that image again")
            off = (np.abs(lengths - 1) > _UNIT) & (lengths > 0)
            read[off] /= lengths[off, None].astype(np.float32)
        return read


@dataclass(frozen=True)
class Index:
    """Embeddings (N, D) of N images, in shards.

    ``model`` is the provenance of what embedded them, empty where nobody wrote it down; ``root`` is the folder from which ids
    count, None where ids are no paths.  Raises InputError for shards of different D.
    """

    folder: Path
    shards: tuple[Shard, ...]
    root: Path | None
    model: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for shard in self.shards:
            if shard.dimension != self.dimension:
                raise InputError(f"expected D = {self.dimension} in all shards, got {shard.dimension} in {shard.path}")

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def dimension(self) -> int:
        """D, the length of an embedding; 0 where there is none."""
        return self.shards[0].dimension if self.shards else 0

    def stream_chunks(self, rows: int = _CHUNK) -> Iterator[tuple[int, FloatArray]]:
        """Go through all embeddings in order: the number of the first row, and up to ``rows`` (n, D) float32."""
        for shard in self.shards:
            for start in range(0, shard.rows, rows):
                yield shard.first + start, shard.read_vectors(start, min(start + rows, shard.rows))

    def stream_raw_chunks(self, rows: int = _CHUNK) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Go through all embeddings in order as they are in the files."""
        for shard in self.shards:
            for start in range(0, shard.rows, rows):
                yield shard.first + start, shard.read_raw(start, min(start + rows, shard.rows))

    def read_vectors(self, rows: IntArray) -> FloatArray:
        """Read the embeddings of some rows, (n, D) float32, in the order of ``rows``."""
        out = np.empty((len(rows), self.dimension), np.float32)
        for shard, here in self._by_shard(rows):
            out[here] = shard.read_vectors_at(rows[here] - shard.first)
        return out

    def read_ids(self, rows: IntArray) -> list[str]:
        """Read the ids of some rows, in their order; each shard's ids are read once and let go."""
        out = [""] * len(rows)
        for shard, here in self._by_shard(rows):
            ids = shard.ids()
            for at in here.tolist():
                out[at] = ids[rows[at] - shard.first]
        return out

    def place(self, id: str) -> str:  # noqa: A002 -- the word the noun uses
        """Where the image of an id is; the id itself where no root is known."""
        return id if self.root is None else str(confine_name(self.root, id))

    def _by_shard(self, rows: IntArray) -> Iterator[tuple[Shard, IntArray]]:
        """The shards that have any of the rows, each with the places in ``rows`` of those that it has."""
        numbers = np.searchsorted([shard.first for shard in self.shards], rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            yield self.shards[number], np.flatnonzero(numbers == number)
