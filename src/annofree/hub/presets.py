"""Presets, and free specs such as ``openai-rn50x64+openai-vit-b-16+sam-b``: compatible sets of models."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from annofree.errors import InputError, build_unknown_error
from annofree.hub.cards import Card
from annofree.hub.store import find_card

__all__ = ["BROUGHT", "DEFAULT", "ROLES", "Preset", "Role", "find_preset", "list_presets"]

DEFAULT = "fast"
"""The preset of ``annofree segment`` and ``annofree.load``."""
Role = Literal["clip", "boundaries", "sam", "dino", "saliency", "zutis", "detector", "tcl", "groupvit"]
ROLES: tuple[Role, ...] = ("clip", "boundaries", "sam", "dino", "saliency", "zutis", "detector", "tcl", "groupvit")
BROUGHT: Mapping[Role, str] = MappingProxyType({"tcl": "tcl", "groupvit": "groupvit-gcc-redcaps"})
"""What a role that serves one method alone is filled by where a preset has nothing in it, which is in all of them."""
_TRAINED: Mapping[str, Role] = MappingProxyType({"Detector": "detector", "TCL": "tcl", "transformers": "groupvit"})
"""The role of a segmenter by the first word of its family, but for those of ZUTIS."""
_EXAMPLE = "openai-rn50x64+openai-vit-b-16+sam-b"


@dataclass(frozen=True)
class Preset:
    """Models that work together, by role: each the name of a card."""

    # unique among all presets; of a free spec, the spec
    name: str
    # gives the clues, and the boundaries too unless a second CLIP does
    clip: str
    # draws masks
    sam: str
    # a second CLIP, for the boundaries alone
    boundaries: str | None = None
    # for methods that ask for a self-supervised ViT
    dino: str | None = None
    # a head on ``dino`` that tells foreground
    saliency: str | None = None
    # a network trained in the text space of ``clip``
    zutis: str | None = None
    # a network that finds the names it was trained on, and needs no other model
    detector: str | None = None
    # the decoder of TCL, on ``clip``
    tcl: str | None = None
    # a GroupViT, which needs no other model
    groupvit: str | None = None
    # what it is for, in a line
    about: str = ""
    # processor-seconds and memory of one photograph on a CPU, as measured
    measured: str = ""
    # settings of a role's model that replace those of its card
    use: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def find_cards(self) -> dict[Role, Card]:
        """The cards by role; raises InputError for an unknown model."""
        named = {role: getattr(self, role) for role in ROLES}
        return {role: find_card(name) for role, name in named.items() if name is not None}

    def select_cards(self, roles: Iterable[Role]) -> dict[Role, Card]:
        """The cards of some roles that it has, or that are filled without it.

        >>> list(list_presets()["fast"].select_cards(["clip", "detector", "tcl"]))
        ['clip', 'tcl']
        """
        wanted, held = set(roles), self.find_cards()
        brought = {role: find_card(name) for role, name in BROUGHT.items() if role in wanted and role not in held}
        return {role: card for role, card in held.items() if role in wanted} | brought


@cache
def list_presets() -> Mapping[str, Preset]:
    """The presets of ``assets/list_presets.toml``, by name."""
    text = (resources.files("annofree.assets") / "presets.toml").read_text(encoding="utf-8")
    return {name: Preset(name=name, **parts) for name, parts in tomllib.loads(text).items()}


def find_preset(spec: str) -> Preset:
    """Return a preset by name, or build one from model names joined by ``+``; roles follow from their kinds.

    Of two CLIPs, the ResNet gives boundary features and the transformer clues.  Raises InputError for unknown names, and for
    models that do not form a pipeline.

    >>> made = find_preset("openai-rn50x64+openai-vit-b-16+sam-b")
    >>> made.clip, made.boundaries, made.sam
    ('openai-vit-b-16', 'openai-rn50x64', 'sam-b')
    """
    if spec in list_presets():
        return list_presets()[spec]
    parts = [part.strip() for part in spec.split("+")]
    if len(parts) == 1 and not spec.startswith("open_clip:"):
        _refuse_alone(spec)
    by_kind: dict[str, list[Card]] = {}
    for card in map(find_card, parts):
        by_kind.setdefault(card.kind, []).append(card)
    trained = by_kind.pop("segmenter", [])
    for card in trained:
        by_kind.setdefault(_TRAINED.get(card.family.split(" ")[0], "zutis"), []).append(card)
    clips, sams, *others = (by_kind.pop(kind, []) for kind in ROLES if kind != "boundaries")
    if by_kind or len(sams) != 1 or len(clips) not in (1, 2) or any(len(found) > 1 for found in others):
        held = ", ".join(f"{find_card(part).kind or 'of no kind'} {part}" for part in parts)
        raise InputError(
            f"expected one or two CLIPs and one SAM (perhaps a DINO, a saliency head and a segmenter), such as {_EXAMPLE}, "
            f"got {held}"
        )
    clip, boundaries = _roles(clips)
    dino, head, zutis, detector, tcl, groupvit = (found[0].name if found else None for found in others)
    return Preset(spec, clip, sams[0].name, boundaries, dino, head, zutis, detector, tcl, groupvit, "put together by hand")


def _refuse_alone(spec: str) -> None:
    try:
        card = find_card(spec)
    except InputError:
        raise build_unknown_error("models preset", spec, list_presets()) from None
    raise InputError(f"expected a preset, or a CLIP and a SAM joined by +, such as {_EXAMPLE}, got {card.name} alone")


def _roles(clips: list[Card]) -> tuple[str, str | None]:
    if len(clips) == 1:
        return clips[0].name, None
    resnets = [c for c in clips if c.family.endswith("ModifiedResNet")]
    others = [c for c in clips if c not in resnets]
    if len(resnets) != 1:
        names = " and ".join(f"{c.name} ({c.family.split(' ')[-1]})" for c in clips)
        raise InputError(f"expected of two CLIPs one ResNet, for boundaries, and one transformer, for clues, got {names}")
    return others[0].name, resnets[0].name
