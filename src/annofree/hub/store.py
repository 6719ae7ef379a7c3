"""annofree's own folder: models that were added by hand, beside what ``seen`` writes down of each at its first fetch.

    ANNOFREE_HOME, or the cache folder of the platform
    ├── models/NAME/     a model added from a folder, a bundle or a published file: its files and card.json
    └── seen/NAME.json   revision, and SHA-256, size and time of each file, recorded at first download

A known model keeps the licence of its known card, whatever it is added from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.hub.cards import BUNDLED, PICKLES, Card, hash_file, list_known_cards
from annofree.hub.open_clip_cards import find_open_clip_card
from annofree.hub.published import convert_published
from annofree.hub.seen import Seen, find_home, make_slug

__all__ = [
    "Seen",
    "add_folder",
    "find_card",
    "find_home",
    "find_publisher",
    "find_stored",
    "keep",
    "list_broken_cards",
    "list_cards",
    "make_slug",
]

_ELSEWHERE = "make room there, or let ANNOFREE_HOME name another folder"


def find_stored(name: str) -> Path | None:
    """Return the folder of a manually added model, or None."""
    folder = find_home() / "models" / make_slug(name)
    return folder if (folder / "card.json").is_file() else None


def list_cards() -> dict[str, Card]:
    """All cards: the known ones and those of manually added models, but for broken ones."""
    return _read_cards()[0]


def list_broken_cards() -> dict[str, str]:
    """Why the cards of some manually added models cannot be read, by the name of their folder."""
    return _read_cards()[1]


def _read_cards() -> tuple[dict[str, Card], dict[str, str]]:
    cards, broken = dict(list_known_cards()), dict[str, str]()
    for path in sorted((find_home() / "models").glob("*/card.json")):
        if not path.parent.name.startswith("."):
            try:
                card = Card.parse(path)
                cards[card.name] = card
            except InputError as problem:
                broken[path.parent.name] = f"{problem}; add the model again, or delete {path.parent}"
    return cards, broken


def find_card(name: str) -> Card:
    """Return a card by name, or by open_clip's own: ``open_clip:ARCH/TAG``.

    Raises InputError for an unknown name, suggesting similar known names.
    """
    cards, broken = _read_cards()
    if make_slug(name) in broken:
        raise InputError(broken[make_slug(name)])
    if name in cards:
        return cards[name]
    if name.startswith("open_clip:"):
        return find_open_clip_card(name)
    raise build_unknown_error("model", name, cards)


def add_folder(source: Path, name: str | None = None) -> Card:
    """Add a model from a folder with card.json, or from the files of the known model ``name``.

    ``source`` may be the file that its makers publish, or a folder with it, which is then converted.  Raises MissingError for
    missing files; InputError for what is no model, for other pickles, and for files that do not match the card or the
    recorded hashes.
    """
    if source.suffix in PICKLES and source.is_file():
        return _add_published(find_publisher(source, name), source)
    if not source.is_dir():
        raise InputError(f"expected a model's folder, its published file or a bundle at {source}, which is none of these")
    if (source / "card.json").is_file():
        card = Card.read(source)
        if name is not None and name != card.name:
            raise InputError(f"expected the model {name} in {source}, but its card says {card.name}")
        return keep(card, source)
    if name is None:
        raise InputError(f"expected card.json in {source}, which has none; say which known model it is with --name NAME")
    card = find_card(name)
    missing = [f for f in card.files if not (source / f).is_file()]
    if not missing:
        return keep(replace(card, files={f: hash_file(source / f) for f in card.files}), source)
    published = next((source / f for f in card.published if (source / f).is_file()), None)
    if published is not None:
        return _add_published(card, published)
    pickles = sorted(p.name for p in source.iterdir() if p.suffix in PICKLES)
    also = f"; {', '.join(pickles)} may run code when loaded and is not taken" if pickles else ""
    raise MissingError(f"the model {card.name} needs {', '.join(missing)}, not found in {source}{also}")


def _add_published(card: Card, path: Path) -> Card:
    """Convert a published file, once, and keep what came of it with the hashes of both."""
    with tempfile.TemporaryDirectory() as scratch:
        published = convert_published(card, path, Path(scratch, "model.safetensors"))
        files = {"model.safetensors": hash_file(Path(scratch, "model.safetensors"))}
        return keep(replace(card, files=files, published=published), Path(scratch))


def find_publisher(path: Path, name: str | None) -> Card:
    """Return the card of the known model that a file is published as, by ``name`` or by the name of the file.

    Raises InputError for a model that is not published as such a file, and for a file of another model.
    """
    by_file = {file: card for card in list_known_cards().values() for file in card.published}
    if name is None and path.name not in by_file:
        raise InputError(f"expected one of {', '.join(by_file)}, got {path}; say which model it is with --name NAME")
    card = find_card(name) if name is not None else by_file[path.name]
    if not card.published:
        raise InputError(f"{path} may run code when loaded and is not taken; {card.name} comes as {', '.join(card.files)}")
    if path.name in by_file and by_file[path.name].name != card.name:
        raise InputError(f"expected the file of {card.name}, but {path.name} is that of {by_file[path.name].name}")
    return card


def keep(card: Card, source: Path) -> Card:
    """Copy the files of a card into the store, atomically; a known model keeps the license of its known card."""
    if card.name in BUNDLED:
        raise InputError(f"the model {card.name} comes with annofree; give yours another name in its card.json")
    known = list_known_cards().get(card.name)
    if known is not None:
        _refuse_other(card, {f: s for f, s in known.files.items() if s}, "its known card names")
        card = replace(known, files=card.files, revision=card.revision or known.revision, published=card.published)
    _refuse_other(card, {f: s for f in card.files if (s := Seen.of(card.name).find_sha256(f))}, "were seen here before")
    present = find_stored(card.name)
    if present is not None:
        _refuse_other(card, Card.parse(present / "card.json").files, f"are in {present} already; delete that folder first")
        return card
    _place(card, source)
    return card


def _refuse_other(card: Card, expected: Mapping[str, str | None], where: str) -> None:
    other = [f for f, sha in expected.items() if card.files.get(f) != sha]
    if other:
        raise InputError(f"expected the files of {card.name} that {where}, but {', '.join(other)} is another")


def _place(card: Card, source: Path) -> None:
    models = find_home() / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".adding-", dir=models))
    except OSError as problem:
        raise InputError(
            f"expected to keep models in {models}, but cannot write there: {problem.strerror}; {_ELSEWHERE}"
        ) from None
    try:
        for name in card.files:
            shutil.copyfile(source / name, scratch / name)
        card.write(scratch)
        Card.read(scratch)  # what arrived is what was sent
        scratch.chmod(0o755)
        scratch.rename(models / make_slug(card.name))
    except OSError as problem:
        why = problem.strerror or problem
        raise InputError(f"cannot keep {card.name} in {models}: {why}; nothing was left there; {_ELSEWHERE}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
