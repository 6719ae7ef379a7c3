"""Methods made of a right one that are wrong in what both kinds of methods have: errors, provenance, remarks, memory."""

from __future__ import annotations

from typing import Any

from annofree.errors import InputError
from annofree.testing.paper_world import NAMES

__all__ = ["accepting_nothing", "counting_in_provenance", "refusing_late", "remarking_in_one_text"]


def refusing_late(right: type, verb: str) -> type:
    """Lets a stranger's error through where names are bad."""

    def ask(self: Any, image: Any, classes: Any) -> Any:
        try:
            return getattr(right, verb)(self, image, classes)
        except InputError as error:
            raise IndexError("list index out of range") from error

    return type("RefusesLate", (right,), {verb: ask})


def accepting_nothing(right: type, verb: str) -> type:
    """Takes all names where none are given."""

    def ask(self: Any, image: Any, classes: Any) -> Any:
        return getattr(right, verb)(self, image, classes or NAMES)

    return type("AcceptsNothing", (right,), {verb: ask})


def counting_in_provenance(right: type, verb: str) -> type:
    """Says in its provenance how often it was asked."""

    def start(self: Any) -> None:
        self.provenance = {"count": 0}

    def ask(self: Any, image: Any, classes: Any) -> Any:
        self.provenance["count"] += 1
        return getattr(right, verb)(self, image, classes)

    return type("CountsInProvenance", (right,), {"__init__": start, verb: ask})


def remarking_in_one_text(right: type) -> type:
    """Makes one text of its remarks."""

    def remarks(self: Any, classes: Any) -> Any:
        return "; ".join(right.remarks(self, classes))  # type: ignore[attr-defined]

    return type("RemarksInOneText", (right,), {"remarks": remarks})
