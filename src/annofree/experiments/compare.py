"""What is done with the figures of a recipe: they are kept in a folder, and compared with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annofree.evaluation.accumulators import Figures

__all__ = ["keeper", "missed", "write_figures"]


def keeper(out: Path | None) -> Callable[[str, Any], None]:
    """Return what writes the findings of a run, by its name, to a folder; nothing is written where there is none."""

    def keep(name: str, found: Any) -> None:
        if out is not None:
            found.write(out / f"{''.join(c if c.isalnum() else '-' for c in name)}.json")

    return keep


def write_figures(out: Path, recipe: Path, figures: Mapping[str, Figures], minutes: float) -> None:
    """Write ``figures.json``: the recipe's file name, the minutes that it took, and the figures of each run."""
    from annofree.io.atomic import write_json

    write_json(out / "figures.json", {"recipe": recipe.name, "minutes": round(minutes, 2), "figures": figures}, indent=2)


def missed(what: str, expected: Mapping[str, float], figures: Figures, tolerance: float) -> list[str]:
    """Name every expected figure that was missed by more than the tolerance."""
    off = [name for name, value in expected.items() if abs((figures.get(name) or 0.0) - value) > tolerance]
    return [f"{what}: {name} is {figures.get(name)}, expected {expected[name]} +- {tolerance}" for name in off]
