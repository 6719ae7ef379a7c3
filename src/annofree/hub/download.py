"""Fetching weights: the Hugging Face cache with the user's settings, only the files listed in a card, each one verified.

Local files are used without network access.  A branch is resolved to its commit at the first
download, and stays pinned to that commit on this machine.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from annofree.errors import AnnofreeError, InputError, MissingError
from annofree.hub.cards import BUNDLED, Card, find_bundled, format_size, read_bundled_card
from annofree.hub.store import Seen, find_stored

__all__ = ["Local", "fetch", "find", "find_cache_folder", "find_present", "renew", "silence"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Local(NamedTuple):
    """A local model: its card, with the revision and the hashes of its files, and its folder."""

    card: Card
    folder: Path


class _UnreachableError(Exception):
    """The hub cannot be reached; holds the reason."""


def find_cache_folder() -> Path:
    """The Hugging Face cache: HF_HUB_CACHE, or that in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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
    from huggingface_hub import try_to_load_from_cache

    revision = _revision(card)
    found = [try_to_load_from_cache(card.hub, name, revision=revision) for name in card.files]
    places = [Path(path) for path in found if isinstance(path, str)]
    return places[0].parent if places and len(places) == len(card.files) else None


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
    except _UnreachableError as why:
        absent = [card for card in missing if find_present(card) is None]
        raise MissingError(_what_to_do(absent, str(why), spec, hint)) from None
    return [_here(card) for card in cards]


def renew(card: Card) -> Local:
    """Re-pin a model to the current revision of its hub; raises what ``fetch`` raises."""
    if not card.hub or find_stored(card.name) is not None:
        Seen.forget(card.name)
        return fetch([card])[0]
    from huggingface_hub import model_info

    try:
        with _refusals(card, card.revision):
            commit = model_info(card.hub, revision=card.revision).sha
        _download(card, commit or card.revision)
    except _UnreachableError as why:
        raise MissingError(f"cannot renew {card.name}: {why}") from None
    Seen(card.hub, commit or "").write(card.name)
    return _here(card)


def _here(card: Card) -> Local:
    local = find(card)
    if local is None:
        raise MissingError(
            f"the model {card.name} was fetched, but is not in {find_cache_folder()}; is that folder being cleaned?"
        )
    return local


def _revision(card: Card) -> str:
    """The commit of the card, else the recorded one, else the card's branch."""
    seen = Seen.of(card.name)
    return card.revision if card.pinned or seen.hub != card.hub or not seen.revision else seen.revision


def _download(card: Card, revision: str) -> None:
    from huggingface_hub import hf_hub_download

    if not card.hub:
        raise MissingError(
            f"the model {card.name} is on no hub; take it from {card.link or 'its makers'} and add it with "
            f"`annofree models add --from DIR --name {card.name}`"
        )
    with _refusals(card, revision):
        _knock(card, revision)
        for name in card.files:
            path = hf_hub_download(
                card.hub, name, revision=revision, library_name="annofree", library_version=version("annofree")
            )
            revision = Path(path).parent.name  # so that the branch may move meanwhile


def _knock(card: Card, revision: str) -> None:
    """Probe the hub for one file: the download itself would retry for half a minute, with a dozen lines of output."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if not constants.HF_HUB_OFFLINE:
        get_hf_file_metadata(hf_hub_url(card.hub, next(iter(card.files)), revision=revision))


@contextmanager
def _refusals(card: Card, revision: str) -> Iterator[None]:
    """Turn download errors into one-line messages."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{card.hub}"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise _UnreachableError("HF_HUB_OFFLINE is set") from None
    except errors.LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        raise _UnreachableError(why) from None
    except errors.GatedRepoError:
        raise MissingError(
            f"the model {card.name} asks for its terms to be accepted: do so at {page}, then `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingError(
            f"{page} has no revision {revision} any more; `annofree models pull --renew {card.name}` takes what it has now"
        ) from None
    except errors.RepositoryNotFoundError:
        raise MissingError(f"the hub shows no {page}; it may be gone, or private and HF_TOKEN missing or wrong") from None
    except errors.EntryNotFoundError:
        wanted = ", ".join(card.files)
        raise MissingError(f"{page} lacks one of the files that {card.name} needs as safetensors: {wanted}") from None
    except errors.HfHubHTTPError as problem:
        raise _UnreachableError(f"{constants.ENDPOINT} answered {problem.response.status_code}") from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as problem:  # type: ignore[attr-defined]  # the HTTP client's
        kind = type(problem).__name__
        how = "cannot be reached" if kind in ("ConnectError", "ConnectTimeout") else f"broke off ({kind})"
        raise _UnreachableError(f"{constants.ENDPOINT} {how}") from None
    except OSError as problem:
        raise _disk(card, problem) from None
    except RuntimeError as problem:  # what the faster transfer makes of a full disk
        if "No space left" in str(problem):
            raise _disk(card, OSError(errno.ENOSPC, "No space left on device")) from None
        raise


def _disk(card: Card, problem: OSError) -> AnnofreeError:
    place = find_cache_folder()
    if problem.errno not in _NO_ROOM:
        return MissingError(f"cannot keep {card.name} in {place}: {problem.strerror or problem}; set HF_HOME to another place")
    existing = next(p for p in (place, *place.parents) if p.exists())
    free = format_size(shutil.disk_usage(existing).free)
    return MissingError(
        f"no room for {card.name} (about {format_size(card.size)}) in {place}, which has {free} left; free some, or set HF_HOME"
    )


def _what_to_do(missing: Sequence[Card], why: str, spec: str, hint: str) -> str:
    what = ", ".join(f"{c.name} ({'about ' if c.size else ''}{format_size(c.size)})" for c in missing)
    names = spec or " ".join(c.name for c in missing)
    return (
        f"not on this machine: {what}, and {why}; run `annofree models pull {names}` with network, or there "
        f"`annofree models bundle --out FILE {names}` and here `annofree models add --from FILE`, or add a folder likewise"
        + (f"; {hint}" if hint else "")
    )


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
        _refuse_changed(card, path, looks[name]["sha256"], known, seen.find_sha256(name))
    revision = folder.name if card.hub and folder.parent.name == "snapshots" else card.revision
    now = Seen(card.hub, revision, looks)
    if now != seen and card.name not in BUNDLED:
        now.write(card.name)
    return Local(replace(card, files={n: look["sha256"] for n, look in looks.items()}, revision=revision), folder)


def _refuse_changed(card: Card, path: Path, found: str, known: str | None, before: str | None) -> None:
    for expected, source in ((known, "its card"), (before, "its first fetch")):
        if expected and found != expected:
            raise InputError(
                f"{path} is not the file of {source}: expected SHA-256 {expected[:12]}..., got {found[:12]}...; "
                f"if the change is meant, `annofree models pull --renew {card.name}` trusts it anew"
            )


def _refuse_damaged(card: Card, path: Path, found: str) -> None:
    """Refuse a file that fails the hub's checksum or is no safetensors; damaged downloads leave the cache."""
    link = path.readlink() if path.is_symlink() else None
    named = link.name if link is not None and re.fullmatch("[0-9a-f]{64}", link.name) else None
    if named in (None, found) and _is_whole(path):
        return
    then = "delete that folder and add the model again"
    if path.parent.parent.name == "snapshots":
        for place in (path.resolve(), path.parent / (link or path.name), path):
            place.unlink(missing_ok=True)
        then = f"it was taken out of the cache; run `annofree models pull {card.name}`"
    raise InputError(f"{path.name} of {card.name} is damaged in {path.parent}; {then}")


def _is_whole(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="numpy"):
            return True
    except SafetensorError:
        return False
