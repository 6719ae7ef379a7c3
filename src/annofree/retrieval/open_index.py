"""From a folder to an index: one of ours, or one of clip-retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from annofree.errors import InputError
from annofree.io.read_json import read_own_json
from annofree.retrieval.clip_retrieval import open_clip_retrieval_shards
from annofree.retrieval.index import Index, Shard, name_embeddings, name_ids, read_manifest
from annofree.retrieval.index_checks import check_shard

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
        held = read_own_json(folder / name_ids(number), "the ids of a shard", "give the same `annofree index` again").get("ids")
        if not isinstance(held, list) or len(held) != rows or not all(isinstance(one, str) for one in held):
            raise InputError(f"expected {rows} ids in {folder / name_ids(number)}; give the same `annofree index` again")
        return held

    check_shard(folder, number)
    shard = Shard.open(folder / name_embeddings(number), first, ids)
    if shard.rows != rows:
        raise InputError(f"expected {rows} rows in {shard.path}, got {shard.rows}; make the index again")
    return shard
