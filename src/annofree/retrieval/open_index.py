"""From a folder to an index: one of ours, or one of clip-retrieval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from annofree.errors import InputError
from annofree.retrieval.clip_retrieval import open_clip_retrieval_shards
from annofree.retrieval.index import Index, Shard, name_embeddings, name_ids, read_manifest

__all__ = ["open_index"]


def open_index(folder: Path, root: Path | None = None) -> Index:
    """Open an index, or a folder of clip-retrieval; ``root`` is where the images are, if not where they were.

    Raises InputError when the folder is neither, is not complete, or lacks a part.
    """
    if (folder / "img_emb").is_dir():
        return Index(folder, open_clip_retrieval_shards(folder), root)
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise InputError(f"the index in {folder} is not complete; let `annofree index` go on with the same command first")
    shards: list[Shard] = []
    for number, rows in enumerate(manifest["shards"]):
        if rows:
            shards.append(_own(folder, number, rows, first=shards[-1].first + shards[-1].rows if shards else 0))
    return Index(folder, tuple(shards), root or Path(manifest["root"]), manifest["model"], manifest)


def _own(folder: Path, number: int, rows: int, first: int) -> Shard:
    def ids() -> Sequence[str]:
        held: list[str] = json.loads((folder / name_ids(number)).read_text(encoding="utf-8"))["ids"]
        return held

    shard = Shard.open(folder / name_embeddings(number), first, ids)
    if shard.rows != rows:
        raise InputError(f"expected {rows} rows in {shard.path}, got {shard.rows}; make the index again")
    return shard
