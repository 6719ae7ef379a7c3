"""Bundles: models in one tar file, for machines without network access.

The file holds ``NAME/card.json``, which has the hash of every file, then ``NAME/FILE``.  The output is deterministic.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from annofree.errors import InputError
from annofree.hub.cards import Card
from annofree.hub.download import Local
from annofree.hub.store import find_home, keep, make_slug
from annofree.io.atomic import make_folder, write_atomic

__all__ = ["add_bundle", "is_bundle", "write_bundle"]

_MEMBER = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<file>[A-Za-z0-9][A-Za-z0-9._-]*)")


def write_bundle(models: Sequence[Local], path: Path) -> None:
    """Write models to a tar file, atomically."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for model in sorted(models, key=lambda m: m.card.name):
                place = make_slug(model.card.name)
                _add_bytes(tar, f"{place}/card.json", json.dumps(asdict(model.card), indent=2, sort_keys=True).encode())
                for name in sorted(model.card.files):
                    _add_file(tar, f"{place}/{name}", model.folder / name)

    if path.is_dir():
        raise InputError(f"expected a file to write the bundle to, but {path} is a folder; name one in it")
    make_folder(path.parent)
    try:
        write_atomic(path, write)
    except OSError as problem:
        raise InputError(f"cannot write the bundle {path}: {problem.strerror or problem}; nothing was left there") from None


def _plain(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644  # no owner, no time: the same models make the same bytes
    return info


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_plain(name, len(content)), io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        tar.addfile(_plain(name, path.stat().st_size), file)


def is_bundle(path: Path) -> bool:
    """Whether a path is a tar file."""
    return path.is_file() and tarfile.is_tarfile(path)


def add_bundle(path: Path) -> list[Card]:
    """Add the models of a bundle; every file is checked before any model is added.

    Raises InputError for a file that is no bundle, holds anything but plain files where they belong, or is damaged.
    """
    make_folder(find_home())
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=find_home()) as scratch:
        try:
            with tarfile.open(path, "r:") as tar:
                members = list(tar)
                _refuse_strange(path, members)
                for member in members:  # by hand: not every Python 3.11 has extraction filters
                    _unpack(tar, member, Path(scratch) / member.name)
        except (tarfile.TarError, EOFError) as problem:
            raise InputError(f"expected a bundle of models in {path}, but it is damaged or none: {problem}") from None
        except OSError as problem:
            why = problem.strerror or problem
            raise InputError(f"cannot unpack {path} in {find_home()}: {why}; nothing was left there") from None
        folders = sorted({m.name.partition("/")[0] for m in members})
        cards = [_checked(path, Path(scratch) / folder) for folder in folders]
        return [keep(card, Path(scratch) / make_slug(card.name)) for card in cards]


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Add a file to a tar without owner, permissions and time stamps."""
    target.parent.mkdir(exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # noqa: S101 -- it is a plain file
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _refuse_strange(path: Path, members: Sequence[tarfile.TarInfo]) -> None:
    strange = [m.name for m in members if not m.isreg() or not _MEMBER.fullmatch(m.name)]
    if strange or not members:
        held = repr(strange[0]) if strange else "nothing"
        raise InputError(f"expected a bundle of models in {path}, with plain files as NAME/FILE only, but it holds {held}")
    names = [m.name for m in members]
    doubled = next((n for n in names if names.count(n) > 1), None)
    if doubled:
        raise InputError(f"expected each file once in the bundle {path}, but {doubled} is there twice")


def _checked(path: Path, folder: Path) -> Card:
    card = Card.read(folder)
    extra = sorted({p.name for p in folder.iterdir()} - {"card.json", *card.files})
    if make_slug(card.name) != folder.name or extra:
        what = extra[0] if extra else "card.json"
        raise InputError(f"expected a bundle of models in {path}, but {folder.name}/{what} belongs to no model there")
    return card
