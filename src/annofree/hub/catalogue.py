"""Models by name: what there are, and how they come to this machine and to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from annofree.errors import AnnofreeError, InputError, build_unknown_error
from annofree.hub.bundles import add_bundle, is_bundle, write_bundle
from annofree.hub.cards import BUNDLED, Card
from annofree.hub.download import Local, fetch, find, find_present, renew
from annofree.hub.presets import find_preset, list_presets
from annofree.hub.store import add_folder, find_card, find_stored, list_broken_cards, list_cards
from annofree.io.arguments import as_list

__all__ = [
    "ModelStatus",
    "PullResult",
    "Verification",
    "add_models",
    "bundle_models",
    "find_cards",
    "list_broken_cards",
    "list_left_out",
    "list_models",
    "pull_models",
    "verify_models",
]


@dataclass(frozen=True)
class ModelStatus:
    """A known model: its kind, supervision tier and licenses, its size in bytes, and whether it is on this machine.

    ``gate`` is ``terms`` where the hub wants its terms accepted.
    """

    name: str
    kind: str
    tier: str
    licence: str
    code_licence: str
    size: int
    gate: str
    present: bool


@dataclass(frozen=True)
class PullResult:
    """Models that are on this machine now, and cards of those that no hub has."""

    models: tuple[Local, ...]
    by_hand: tuple[Card, ...]


@dataclass(frozen=True)
class Verification:
    """Whether the files of a model are what they should be, and what was found, in words."""

    name: str
    ok: bool
    text: str


def list_models() -> list[ModelStatus]:
    """List all models that annofree knows, and those that were added by hand.

    >>> [model.name for model in list_models() if model.kind == "clip" and model.present][:1]
    ['tiny-clip']
    """
    return [
        ModelStatus(c.name, c.kind, c.tier, c.licence, c.code_licence or "unknown", c.size, c.gate, find_present(c) is not None)
        for c in list_cards().values()
    ]


def find_cards(names: str | Iterable[str]) -> list[Card]:
    """Return the cards of models and presets, each once, in the order given; raises InputError for an unknown name."""
    known = list_cards()
    cards: dict[str, Card] = {}
    for name in map(str, as_list(names)):
        if name in list_presets() or "+" in name:
            cards |= {card.name: card for card in find_preset(name).find_cards().values()}
        elif name in known or name.startswith("open_clip:"):
            cards[name] = find_card(name)
        else:
            raise build_unknown_error("model or preset", name, [*known, *list_presets()])
    return list(cards.values())


def pull_models(names: str | Sequence[str], *, renewed: bool = False) -> PullResult:
    """Fetch models, or all of a preset, and check them; what is on this machine already is checked only.

    ``renewed`` trusts what the hub has now, changed or not.  Raises InputError for an unknown name, and what ``fetch`` raises.

    >>> [local.card.name for local in pull_models(["tiny-clip", "tiny-sam"]).models]
    ['tiny-clip', 'tiny-sam']
    """
    wanted, by_hand = _part_by_hand(names)
    return PullResult(tuple(map(renew, wanted) if renewed else fetch(wanted)), tuple(by_hand))


def _part_by_hand(names: str | Sequence[str]) -> tuple[list[Card], list[Card]]:
    """Part the models of names from those that no hub has and nobody added; one that is named itself is wanted."""
    named, cards = as_list(names), find_cards(names)
    by_hand = [card for card in cards if not card.hub and find_present(card) is None and card.name not in named]
    return [card for card in cards if card not in by_hand], by_hand


def verify_models(names: str | Sequence[str] = ()) -> list[Verification]:
    """Read every file of models again and compare it with their cards and with their first fetch; of all here for no names.

    >>> [(found.name, found.ok) for found in verify_models(["tiny-clip"])]
    [('tiny-clip', True)]
    """
    found = [_verification(card) for card in (find_cards(names) if names else list_cards().values())]
    return [v or Verification(name, False, "not on this machine") for name, v in found if v is not None or names]


def _verification(card: Card) -> tuple[str, Verification | None]:
    """Check a model; None where it is not on this machine."""
    try:
        local = find(card, again=True)
    except AnnofreeError as problem:
        return card.name, Verification(card.name, False, str(problem))
    if local is None:
        return card.name, None
    return card.name, Verification(card.name, True, f"as it should be ({len(local.card.files)} files in {local.folder})")


def bundle_models(names: str | Sequence[str], out: str | Path) -> Path:
    """Write models into one tar file with their hashes, for a machine without network; fetches what is missing.

    What comes with annofree is there already and left out, and so is what only people can add, unless it was added or is named
    itself.  Raises InputError where nothing is left, and what ``fetch`` raises.
    """
    wanted = [card for card in _part_by_hand(names)[0] if card.name not in BUNDLED]
    if not wanted:
        what = ", ".join(map(str, as_list(names)))
        raise InputError(f"expected models to bundle, got {what}, which comes with annofree wherever it is installed")
    write_bundle(fetch(wanted), Path(out))
    return Path(out)


def list_left_out(names: str | Sequence[str]) -> list[Card]:
    """List the models of presets that a bundle of them lacks, as no hub has them and nobody added them here."""
    return _part_by_hand(names)[1]


def add_models(source: str | Path, *, name: str | None = None) -> dict[str, Path]:
    """Add models from a bundle, a folder or a published file, hashes checked first, and return their folders by name.

    ``name`` is which known model a folder without card.json, or a file, is.  A file that its makers publish, such as
    ``selfmask_nq20.pt``, is read without running code and kept as safetensors.  Raises InputError for what is no model, or
    another one.
    """
    path = Path(source)
    if is_bundle(path):
        if name is not None:
            raise InputError("expected --name with a folder or a file only; a bundle names its models itself")
        cards = add_bundle(path)
    else:
        cards = [add_folder(path, name)]
    return {card.name: folder for card in cards if (folder := find_stored(card.name)) is not None}
