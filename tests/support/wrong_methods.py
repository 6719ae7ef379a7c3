"""Methods made of a right one that are wrong in what both kinds of methods have: errors, provenance, remarks, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from annofree.errors import InputError
from annofree.structures import Image
from annofree.testing.paper_world import NAMES

__all__ = ["mistakes_of_both", "remarking_in_one_text"]

Row = tuple[type, str, str]
"""A wrong method, the check that it fails, and what that says."""


def mistakes_of_both(right: type, verb: str, *, batches: str, names: str, provenance: str, remarks: str) -> list[Row]:
    """Return the wrong methods with the checks, by name, that are made for them."""
    return [
        (_shuffling_batches(right), batches, "encoded with others"),
        (_losing_the_last(right), batches, "encodings of as many images"),
        (_refusing_late(right, verb), names, "got IndexError"),
        (_accepting_nothing(right, verb), names, "got an answer"),
        (_counting_in_provenance(right, verb), provenance, "changed between two uses"),
        (remarking_in_one_text(right), remarks, "list of sentences"),
    ]


def _shuffling_batches(right: type) -> type:
    """Encodes the smallest first, whatever the order asked for."""

    def encode(self: Any, images: Sequence[Image]) -> list[Any]:
        found: list[Any] = right.encode(self, sorted(images, key=lambda image: image.size))  # type: ignore[attr-defined]
        return found

    return type("ShufflesBatches", (right,), {"encode": encode})


def _losing_the_last(right: type) -> type:
    """Encodes all but the last."""

    def encode(self: Any, images: Sequence[Image]) -> list[Any]:
        found: list[Any] = right.encode(self, images[: max(1, len(images) - 1)])  # type: ignore[attr-defined]
        return found

    return type("LosesTheLast", (right,), {"encode": encode})


def _refusing_late(right: type, verb: str) -> type:
    """Lets a stranger's error through where names are bad."""

    def ask(self: Any, image: Any, classes: Any) -> Any:
        try:
            return getattr(right, verb)(self, image, classes)
        except InputError as error:
            raise IndexError("list index out of range") from error

    return type("RefusesLate", (right,), {verb: ask})


def _accepting_nothing(right: type, verb: str) -> type:
    """Takes all names where none are given."""

    def ask(self: Any, image: Any, classes: Any) -> Any:
        return getattr(right, verb)(self, image, classes or NAMES)

    return type("AcceptsNothing", (right,), {verb: ask})


def _counting_in_provenance(right: type, verb: str) -> type:
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
