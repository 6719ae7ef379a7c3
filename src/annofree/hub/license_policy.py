"""The ledger: what a pipeline may hold, by supervision and by license, and which part breaks that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from annofree.errors import InputError, build_unknown_error
from annofree.hub.cards import TIERS, Card

__all__ = ["PERMISSIVE", "check", "find_models", "list_above"]

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX ids of licenses that ask for no more than their notice; an unknown license is not one of them."""


def check(cards: Iterable[Card], max_tier: str | None = None, licence: str | None = None) -> None:
    """Refuse models above a tier of supervision, or whose weights or code have other licenses than those allowed.

    ``licence`` is ``permissive``, or comma-separated SPDX ids.  Raises InputError that names every violating model,
    and for an unknown tier.

    >>> from annofree.hub.cards import list_known_cards
    >>> cards = list_known_cards()
    >>> check([cards["openai-rn50"], cards["sam-b"]], "S2", "permissive")
    >>> check([cards["openai-rn50"], cards["sam-b"]], "S1")
    Traceback (most recent call last):
    annofree.errors.InputError: expected models of tier S1 at most, but sam-b is S2 (class-agnostic masks, as SAM's)
    """
    cards = list(cards)
    over = [] if max_tier is None else list_above([(card.name, card.tier) for card in cards], max_tier)
    allowed, other = _allowed(licence), list[str]()
    for card in cards:
        if allowed is not None:
            terms = {"weights": card.licence, "code": card.code_licence or "unknown"}
            broken = [f"{what} are {spdx}" if what == "weights" else f"code is {spdx}" for what, spdx in terms.items()]
            wrong = [text for text, spdx in zip(broken, terms.values(), strict=True) if spdx not in allowed]
            other += [f"{card.name}'s {' and '.join(wrong)}"] if wrong else []
    problems = [f"expected models of tier {max_tier} at most, but {', '.join(over)}"] if over else []
    problems += [f"expected licences {licence}, but {', '.join(other)}"] if other else []
    if problems:
        raise InputError("; ".join(problems))


def list_above(models: Iterable[tuple[str, str]], max_tier: str) -> list[str]:
    """Which models, by name and tier, are above a tier, in words; one of a tier that is not known is above all.

    Raises InputError for an unknown ``max_tier``.

    >>> list_above([("a-clip", "S1"), ("somebody's", "unknown")], "S2")
    ["somebody's is unknown"]
    """
    if max_tier not in TIERS:
        raise build_unknown_error("tier", max_tier, TIERS)
    over = [(name, tier) for name, tier in models if tier not in TIERS or tier > max_tier]
    return [f"{name} is {tier}" + (f" ({TIERS[tier]})" if tier in TIERS else "") for name, tier in over]


def find_models(held: Any) -> Iterator[Mapping[str, Any]]:
    """Everything in provenance that has a name and a tier, at any depth: objectness has models of its own.

    >>> [model["name"] for model in find_models({"models": [{"name": "a", "tier": "S1"}, {"x": {"name": "b", "tier": "S0"}}]})]
    ['a', 'b']
    """
    if isinstance(held, Mapping):
        yield from [held] if "tier" in held and "name" in held else []
        held = list(held.values())
    for part in held if isinstance(held, list) else []:
        yield from find_models(part)


def _allowed(licence: str | None) -> frozenset[str] | None:
    if licence is None:
        return None
    if licence.strip().lower() == "permissive":
        return PERMISSIVE
    ids = frozenset(filter(None, (part.strip() for part in licence.split(","))))
    if not ids:
        raise InputError("expected --license permissive, or SPDX ids such as MIT,Apache-2.0, got none")
    return ids
