"""Fetching weights: the Hugging Face cache with the user's settings, only the files listed in a card, each one verified.

Local files are used without network access.  A branch is resolved to its commit at the first
download, and stays pinned to that commit on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from annofree.errors import InputError, MissingError
from annofree.hub.cards import BUNDLED, Card, find_bundled, format_size, read_bundled_card
from annofree.hub.refusals import UnreachableError, explain_refusals
from annofree.hub.store import Seen, find_stored
from annofree.hub.transfer import find_cache_folder, find_commit, transfer_file

__all__ = ["Local", "fetch", "find", "find_cache_folder", "find_present", "renew", "silence"]


class Local(NamedTuple):
    """A local model: its card, with the revision and the hashes of its files, and its folder."""

    card: Card
    folder: Path


def silence() -> None:
    """Disable progress bars of downloads."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()


def find_present(card: Card) -> Path | None:
    """Return the folder of a local model, unverified; None if any of its files is missing."""
    if card.name in BUNDLED:
        return find_bundled(card.name)
    if (own := find_stored(card.name)) is not None:
        return own
    if not card.hub:
        return None
    return next(filter(None, (_find_cached(card, revision) for revision in _list_revisions(card))), None)


def _find_cached(card: Card, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(card.hub, name, revision=revision) for name in card.files]
    places = [Path(path) for path in found if isinstance(path, str)]
    return places[0].parent if places and len(places) == len(card.files) else None


def _list_revisions(card: Card) -> list[str]:
    """The revision that is asked for, then the one of the first fetch here, if its files are those of the card."""
    seen = Seen.of(card.name)
    agree = all(seen.find_sha256(name) == sha for name, sha in card.files.items() if sha)
    return [_revision(card), *([seen.revision] if seen.hub == card.hub and seen.revision and agree else [])]


def find(card: Card, *, again: bool = False) -> Local | None:
    """Return a local model, verified; None if any of its files is missing.

    A file is hashed on first use, when its size or time changed, and if ``again`` is set.
    Raises InputError if a file does not match the card or the hash recorded at first download.
    """
    folder = find_present(card)
    return None if folder is None else _checked(card, folder, again)


def fetch(cards: Sequence[Card], *, spec: str = "", hint: str = "") -> list[Local]:
    """Return models, downloading those that are missing.

    If that fails, the error names the ``spec`` they belong to, if any, and a ``hint``.

    Raises MissingError, in one line for all missing models, if the hub cannot be reached, requires accepted terms, or
    does not have them; and if the disk is full.  Raises InputError if a file fails verification.
    """
    missing = [card for card in cards if find_present(card) is None]
    try:
        for card in missing:
            _download(card, _revision(card))
    except UnreachableError as why:
        absent = [card for card in missing if find_present(card) is None]
        raise MissingError(_what_to_do(absent, why, spec, hint)) from None
    return [_here(card) for card in cards]


def renew(card: Card) -> Local:
    """Re-pin a model to the current revision of its hub; raises what ``fetch`` raises."""
    if not card.hub or find_stored(card.name) is not None:
        Seen.forget(card.name)
        return fetch([card])[0]
    try:
        with explain_refusals(card, card.branch):
            commit = find_commit(card.hub, next(iter(card.files)), card.branch)
        _download(card, commit)
    except UnreachableError as why:
        raise MissingError(f"cannot renew {card.name}: {why}{'; ' * bool(why.then)}{why.then}") from None
    Seen(card.hub, commit, renewed=True).write(card.name)
    return _here(card)


def _here(card: Card) -> Local:
    local = find(card)
    if local is None:
        raise MissingError(
            f"the model {card.name} was fetched, but is not in {find_cache_folder()}; is that folder being cleaned?"
        )
    return local


def _revision(card: Card) -> str:
    """The commit that was renewed, or of the card, else the recorded one, else the card's branch."""
    seen = Seen.of(card.name)
    if seen.hub != card.hub or not seen.revision:
        return card.revision
    return card.revision if card.pinned and not seen.renewed else seen.revision


def _download(card: Card, revision: str) -> None:
    if not card.hub:
        raise MissingError(f"the model {card.name} is on no hub; {card.explain_adding()}")
    with explain_refusals(card, revision):
        for name in card.files:
            path = transfer_file(card.hub, name, revision, f"{card.name} {name}")
            revision = path.parent.name  # so that the branch may move meanwhile


def _what_to_do(missing: Sequence[Card], why: UnreachableError, spec: str, hint: str) -> str:
    what = ", ".join(f"{c.name} ({'about ' if c.size else ''}{format_size(c.size)})" for c in missing)
    names = spec or " ".join(c.name for c in missing)
    do = why.then and f"{why.then}; `annofree models pull {names}` goes on where it stopped"
    do = do or (
        f"run `annofree models pull {names}` with network, or there `annofree models bundle --out FILE {names}` and here "
        "`annofree models add --from FILE`, or add a folder likewise"
    )
    return f"not on this machine: {what}, and {why}; {do}{f'; {hint}' if hint else ''}"


def _checked(card: Card, folder: Path, again: bool) -> Local:
    """Verify every file against the card, the recorded hashes and the hub's own checksum; record the hashes."""
    if card.name in BUNDLED:
        card = read_bundled_card(card.name)
    elif folder == find_stored(card.name):
        card = Card.parse(folder / "card.json")
    seen = Seen.of(card.name)
    looks = {}
    for name, known in card.files.items():
        path = folder / name
        if not path.is_file():
            raise MissingError(f"the model {card.name} needs {name} in {folder}; it is not there")
        looks[name] = seen.look(path, again)
        if looks[name] != seen.files.get(name):
            _refuse_damaged(card, path, looks[name]["sha256"])
        _refuse_changed(card, path, looks[name]["sha256"], None if seen.renewed else known, seen.find_sha256(name))
    revision = folder.name if card.hub and folder.parent.name == "snapshots" else card.revision
    now = Seen(card.hub, revision, looks, seen.renewed)
    if now != seen and card.name not in BUNDLED:
        now.write(card.name)
    return Local(replace(card, files={n: look["sha256"] for n, look in looks.items()}, revision=revision), folder)


def _refuse_changed(card: Card, path: Path, found: str, known: str | None, before: str | None) -> None:
    for expected, source in ((known, "its card"), (before, "its first fetch")):
        if expected and found != expected:
            raise InputError(
                f"{path} is not the file of {source}: expected SHA-256 {expected[:12]}..., got {found[:12]}...; "
                f"{_mend(card, path, 'if the change is meant, `annofree models pull --renew {}` trusts it anew')}"
            )


def _mend(card: Card, path: Path, cached: str) -> str:
    """What helps against a file that is another: ``cached`` for one from the hub."""
    if card.name in BUNDLED:
        return "it comes with annofree; install that again"
    if path.parent.parent.name == "snapshots":
        return cached.format(card.name)
    return f"delete {path.parent} and add the model again"


def _refuse_damaged(card: Card, path: Path, found: str) -> None:
    """Refuse a file that fails the hub's checksum or is no safetensors; damaged downloads leave the cache."""
    link = path.readlink() if path.is_symlink() else None
    if (link is None or _is_named_after(path, link.name, found)) and _is_whole(path):
        return
    if path.parent.parent.name == "snapshots":
        for place in (path.resolve(), path.parent / (link or path.name), path):
            place.unlink(missing_ok=True)
    then = _mend(card, path, "it was taken out of the cache; run `annofree models pull {}`")
    raise InputError(f"{path.name} of {card.name} is damaged in {path.parent}; {then}")


def _is_named_after(path: Path, blob: str, found: str) -> bool:
    """Whether a file has the checksum that its blob is named after: SHA-256 of large files, and git's own of small ones."""
    if re.fullmatch("[0-9a-f]{64}", blob):
        return blob == found
    if re.fullmatch("[0-9a-f]{40}", blob):
        content = path.read_bytes()
        return blob == sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return True


def _is_whole(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="numpy"):
            return True
    except SafetensorError:
        return False
