"""Synthetic Hugging Face caches, for tests of downloads and verification."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from annofree.hub.cards import Card
from annofree.hub.seen import Seen

__all__ = ["trust_files", "write_snapshot"]


def write_snapshot(cache: Path, hub: str, revision: str, files: Mapping[str, bytes], branch: str = "main") -> Path:
    """Write files as one revision of a repository, which a branch then means, and return the folder of that revision.

    As in the client's layout a file is a link to a blob that is named after its SHA-256.
    """
    root = cache / f"models--{hub.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    for folder in (snapshot, root / "blobs", root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        sha = hashlib.sha256(content).hexdigest()
        (root / "blobs" / sha).write_bytes(content)
        (snapshot / name).unlink(missing_ok=True)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", sha))
    (root / "refs" / branch).write_text(revision, encoding="utf-8")
    return snapshot


def trust_files(card: Card, folder: Path) -> None:
    """Write down, in annofree's own folder, that the files of a ``folder`` of a revision are meant, whatever the card says."""
    looks = {name: Seen().look(folder / name) for name in card.files if (folder / name).exists()}
    Seen(card.hub, folder.name, looks, renewed=True).write(card.name)
