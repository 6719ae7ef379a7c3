"""What readers pass over, correct or refuse, each with its file, place and reason, so that nothing is lost silently.

A reader takes one ``PassedOver`` and tells it of everything in its files that it does not give as it stands: ``note`` for what
is left out by design, ``refuse`` for what it cannot read, and ``fix`` for what it gives in a corrected form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from annofree.errors import InputError

__all__ = ["PassedOver", "Place", "Remark"]

_MOST_NAMED = 20  # in one message, or one table

Item = TypeVar("Item")
Place = tuple[Path | str, str]
"""A file, and a place in it."""


@dataclass(frozen=True)
class Remark:
    """One thing of a ``file``: its ``place``, such as "line 3" or "" for all of it, ``reason``, and ``count`` of ``what``."""

    file: str
    place: str
    reason: str
    what: str = "objects"
    count: int = 1

    def __str__(self) -> str:
        return f"{self.file}{', ' if self.place else ''}{self.place}: {self.reason}"


class PassedOver:
    """Remarks of one reading, each once, however often its files are gone through.

    Unless ``skip_unsupported``, what was refused raises an InputError at the end of the reading, which names all of it.

    >>> passed = PassedOver(skip_unsupported=True)
    >>> passed.refuse("a.json", "shape 2", "a circle, which has no mask")
    >>> list(map(str, passed.left_out)), passed.losses
    (['a.json, shape 2: a circle, which has no mask'], ['1 objects passed over when reading'])
    """

    def __init__(self, skip_unsupported: bool = False) -> None:
        self.skip_unsupported = skip_unsupported
        self._remarks: dict[Remark, Literal["noted", "refused", "fixed"]] = {}

    @property
    def left_out(self) -> list[Remark]:
        """What was not read."""
        return [remark for remark, kind in self._remarks.items() if kind != "fixed"]

    @property
    def fixed(self) -> list[Remark]:
        """What was read in a corrected form."""
        return [remark for remark, kind in self._remarks.items() if kind == "fixed"]

    @property
    def losses(self) -> list[str]:
        """How many of what were passed over."""
        counts: Counter[str] = Counter()
        for remark in self.left_out:
            counts[remark.what] += remark.count
        return [f"{count} {what} passed over when reading" for what, count in counts.items() if count]

    def note(self, file: Path | str, place: str, reason: str, what: str = "objects", count: int = 1) -> None:
        """Count what is left out by design, such as an annotation that its author cancelled."""
        self._remarks.setdefault(Remark(str(file), place, reason, what, count), "noted")

    def refuse(self, file: Path | str, place: str, reason: str, what: str = "objects", count: int = 1) -> None:
        """Count what cannot be read: an odd shape, a number that is none."""
        self._remarks.setdefault(Remark(str(file), place, reason, what, count), "refused")

    def fix(self, file: Path | str, place: str, reason: str) -> None:
        """Tell of an object that is given in a corrected form, such as swapped corners."""
        self._remarks.setdefault(Remark(str(file), place, reason), "fixed")

    def check(self) -> None:
        """Raise InputError that names what was refused, unless that is to be skipped."""
        refused = [str(remark) for remark, kind in self._remarks.items() if kind == "refused"]
        if refused and not self.skip_unsupported:
            more = f"; and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
            raise InputError(
                f"expected objects that can be read, got {len(refused)} that cannot: {'; '.join(refused[:_MOST_NAMED])}{more}; "
                "mend them, or pass them over with --skip-unsupported (skip_unsupported=True)"
            )

    def check_after(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield all items, such as the images of a reader, then ``check``."""
        yield from items
        self.check()

    def format_lines(self) -> list[str]:
        """Say what was passed over and corrected, a line each, at most twenty of each kind."""
        lines = []
        for title, remarks in (("passed over", self.left_out), ("corrected", self.fixed)):
            lines += [f"  {title}  {' '.join(str(remark).split())}" for remark in remarks[:_MOST_NAMED]]
            if len(remarks) > _MOST_NAMED:
                lines.append(f"  {title}  {len(remarks) - _MOST_NAMED} more, see fidelity.json")
        return lines

    def to_json_dict(self) -> dict[str, list[dict[str, Any]]]:
        """All remarks as plain values, under ``passed_over`` and ``corrected``."""
        return {"passed_over": [asdict(r) for r in self.left_out], "corrected": [asdict(r) for r in self.fixed]}
