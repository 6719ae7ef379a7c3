"""The ledger: what a pipeline may hold, by supervision and by license, and which part breaks that."""

from __future__ import annotations

from collections.abc import Iterable

from annofree.errors import InputError, build_unknown_error
from annofree.hub.cards import TIERS, Card

__all__ = ["PERMISSIVE", "check"]

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
    if max_tier is not None and max_tier not in TIERS:
        raise build_unknown_error("tier", max_tier, TIERS)
    allowed = _allowed(licence)
    over, other = [], []
    for card in cards:
        if max_tier is not None and card.tier > max_tier:
            over.append(f"{card.name} is {card.tier} ({TIERS[card.tier]})")
        if allowed is not None:
            terms = {"weights": card.licence, "code": card.code_licence or "unknown"}
            broken = [f"{what} are {spdx}" if what == "weights" else f"code is {spdx}" for what, spdx in terms.items()]
            wrong = [text for text, spdx in zip(broken, terms.values(), strict=True) if spdx not in allowed]
            other += [f"{card.name}'s {' and '.join(wrong)}"] if wrong else []
    problems = [f"expected models of tier {max_tier} at most, but {', '.join(over)}"] if over else []
    problems += [f"expected licences {licence}, but {', '.join(other)}"] if other else []
    if problems:
        raise InputError("; ".join(problems))


def _allowed(licence: str | None) -> frozenset[str] | None:
    if licence is None:
        return None
    if licence.strip().lower() == "permissive":
        return PERMISSIVE
    ids = frozenset(filter(None, (part.strip() for part in licence.split(","))))
    if not ids:
        raise InputError("expected --license permissive, or SPDX ids such as MIT,Apache-2.0, got none")
    return ids
