"""What clip-retrieval's ``clip inference`` writes: ``img_emb/img_emb_0.npy`` and ``metadata/metadata_0.parquet``, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from annofree.errors import InputError, MissingError
from annofree.retrieval.index import Shard

__all__ = ["open_clip_retrieval_shards"]

_ID = "image_path"


def open_clip_retrieval_shards(folder: Path) -> tuple[Shard, ...]:
    """Open the shards of a folder of clip-retrieval, in the order of their numbers.

    Ids are the column ``image_path`` of the metadata; without a folder ``metadata`` they are row numbers, through all shards.
    The vectors are made unit where they are not.  Raises InputError for a folder without embeddings, or whose metadata are
    not one row a vector; MissingError where there are metadata and pyarrow is not installed.
    """
    files = sorted((folder / "img_emb").glob("img_emb_*.npy"), key=_number)
    if not files:
        raise InputError(f"expected embeddings such as img_emb_0.npy in {folder / 'img_emb'}, found none")
    described, shards, first = (folder / "metadata").is_dir(), list[Shard](), 0
    for path in files:
        shard = Shard.open(path, first, list, unit=False)
        ids: Callable[[], Sequence[str]] = partial(_row_numbers, first, shard.rows)
        if described:
            metadata = folder / "metadata" / f"metadata_{path.stem.rpartition('_')[2]}.parquet"
            _check(metadata, shard)
            ids = partial(_paths, metadata)
        shards.append(replace(shard, ids=ids))
        first += shard.rows
    return tuple(shard for shard in shards if shard.rows)


def _number(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    if not digits.isdecimal():
        raise InputError(f"expected a number at the end of the name of {path}, such as img_emb_0.npy")
    return int(digits)


def _row_numbers(first: int, rows: int) -> Sequence[str]:
    return [str(row) for row in range(first, first + rows)]


def _check(metadata: Path, shard: Shard) -> None:
    rows = _parquet(metadata).metadata.num_rows
    if rows != shard.rows:
        raise InputError(f"expected {shard.rows} rows in {metadata}, as many as in {shard.path}, got {rows}")


@lru_cache(4)
def _paths(metadata: Path) -> Sequence[str]:
    table = _parquet(metadata)
    if _ID not in table.schema_arrow.names:
        raise InputError(f"expected a column {_ID} in {metadata}, got {', '.join(table.schema_arrow.names)}")
    return [str(value) for value in table.read(columns=[_ID]).column(_ID).to_pylist()]


def _parquet(path: Path) -> Any:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise MissingError(
            f"reading {path} needs pyarrow, which is not installed; install annofree[parquet], "
            "or move the folder metadata away, and rows are known by their numbers"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as problem:
        raise InputError(f"expected the metadata of a shard at {path}, but they cannot be read: {problem}") from None
