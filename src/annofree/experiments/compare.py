"""What is done with the figures of a recipe: they are kept in a folder, and compared with what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from annofree.evaluation.accumulators import Figures

__all__ = ["find_missed", "make_figure_writer", "name_file", "write_figures"]

_FIGURES = "figures.json"
_LEFT_AS_THEY_ARE = " ,+=()[]{}'!&@#;~^$`"  # no file system minds them, and names of runs have them


def make_figure_writer(out: Path | None) -> Callable[[str, Any], None]:
    """Return what writes the findings of a run, by its name, to a folder; nothing is written where there is none."""

    def keep(name: str, found: Any) -> None:
        if out is not None:
            found.write(out / name_file(name))

    return keep


def name_file(run: str) -> str:
    """Name the file of a run's findings: another one for each name, and never ``figures.json``.

    What may not stand in a file's name is written as in a URL.

    >>> name_file("a b"), name_file("a/b: c"), name_file("figures")
    ('a b.json', 'a%2Fb%3A c.json', '%66igures.json')
    """
    name = f"{quote(run, safe=_LEFT_AS_THEY_ARE)}.json"
    return f"%66{name[1:]}" if name == _FIGURES else name


def write_figures(out: Path, recipe: Path, figures: Mapping[str, Figures], minutes: float) -> None:
    """Write ``figures.json``: the recipe's file name, minutes, the figures of each run, and what they ran on."""
    from annofree.io.atomic import write_json
    from annofree.runs.environment import describe_environment

    held = {"recipe": recipe.name, "minutes": round(minutes, 2), "figures": figures, "environment": describe_environment()}
    write_json(out / _FIGURES, held, indent=2)


def find_missed(what: str, expected: Mapping[str, float], figures: Figures, tolerance: float) -> list[str]:
    """Name every expected figure that was missed by more than the tolerance, was not measured, or has no value.

    >>> find_missed("zip", {"all AP": 40.0, "al AP": 0.0}, {"all AP": 39.8}, 0.5)
    ["zip: al AP was not measured, expected 0.0 +- 0.5; did you mean 'all AP'?"]
    """
    said = {name: _said_of(name, value, figures, tolerance) for name, value in expected.items()}
    return [f"{what}: {name} {why}" for name, why in said.items() if why]


def _said_of(name: str, value: float, figures: Figures, tolerance: float) -> str:
    """How a figure is off; nothing where it is not."""
    wanted = f"expected {value} +- {tolerance}"
    if name not in figures:
        near = get_close_matches(name, figures, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        return f"was not measured, {wanted}{hint}"
    measured = figures[name]
    if measured is not None and abs(measured - value) <= tolerance:  # which no NaN is
        return ""
    return f"is {measured}, {wanted}"
