"""What a trained model says of where it comes from: no place on a machine, what it took, the supervision that went into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

__all__ = ["find_tiers", "make_portable", "summarize_cost"]


def make_portable(value: Any) -> Any:
    """A value for JSON in which absolute paths are names of files.

    >>> make_portable({"from": "/data/run", "names": ("a", "b")})
    {'from': 'run', 'names': ['a', 'b']}
    """
    if isinstance(value, Mapping):
        return {str(k): make_portable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_portable(v) for v in value]
    if isinstance(value, PurePath) or (isinstance(value, str) and PurePath(value).is_absolute()):
        return PurePath(value).name
    return value


def summarize_cost(steps: int, batch: int, figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of a card that tell what a training took; minutes where the last line of its log, ``figures``, has seconds.

    >>> summarize_cost(10, 4, {"seconds": 90.0})
    {'training steps': 10, 'training scenes': 40, 'training minutes': 1.5}
    """
    minutes = {"training minutes": round(figures["seconds"] / 60, 1)} if "seconds" in figures else {}
    return {"training steps": steps, "training scenes": steps * batch, **minutes}


def find_tiers(value: Any) -> Iterator[str]:
    """The supervision tiers that are named anywhere in provenance.

    >>> sorted(find_tiers({"models": [{"name": "S2", "tier": "S1"}, {"tier": "S0"}]}))
    ['S0', 'S1']
    """
    if isinstance(value, str) and len(value) == 2 and value[0] == "S" and value[1].isdigit():
        yield value
    elif isinstance(value, Mapping):
        for name, held in value.items():
            yield from find_tiers(held) if not isinstance(held, str) or name == "tier" else ()
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from find_tiers(held)
