"""The images of a page: listed once, found by their names, and paged by name or risk however many they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.apps.web.run_answers import OpenedRun, RowPlace
from annofree.errors import InputError
from annofree.formats.values import read_image_size
from annofree.runs.corrections.acts import History
from annofree.runs.inputs import find_source

__all__ = ["ORDERS", "STATES", "ImageList", "Listed", "Told"]

ORDERS, STATES = ("name", "risk"), ("all", "open", "reviewed", "corrected")

_MOST_AT_ONCE = 500


@dataclass(slots=True)
class Listed:
    """One image: its ``id`` on the page, and its ``place``, which nobody but the list tells."""

    id: str
    place: str
    width: int = 0
    height: int = 0
    failed: str | None = None
    row: RowPlace | None = None


@dataclass(frozen=True)
class Told:
    """What is known of the machine's answer to an image: how many instances, the risk that it is wrong, and its names."""

    instances: int
    risk: float
    names: tuple[str, ...]


class ImageList:
    """The images of a run or a folder, and uploads; for threads."""

    def __init__(self) -> None:
        self._held: dict[str, Listed] = {}
        self._turn = threading.Lock()
        self._by_risk: list[Listed] | None = None

    def add_run(self, run: OpenedRun) -> None:
        """Add the images of a run, with where their rows are."""
        root = "" if run.root is None else str(run.root)
        for row in run.list_rows():
            place = f"{root}/".replace("//", "/") + row.own if root else ""
            self._held[row.id] = Listed(row.id, place, row.width, row.height, row.failed, row)

    def add_folder(self, folder: Path, exclude: Path) -> None:
        """Add the images of a folder; raises InputError where there are none."""
        source = find_source([folder], exclude)
        root = f"{source.root}/".replace("//", "/")
        for own in source.list_ids():
            name = own.encode("utf-8", "replace").decode()
            self._held[name] = Listed(name, root + own)

    def add_uploads(self, folder: Path, names: Iterable[str]) -> list[str]:
        """Add files of the folder of uploads, and return what they are called."""
        with self._turn:
            added = []
            for name in names:
                id_, k = f"uploads/{name}", 1
                while id_ in self._held and self._held[id_].place != str(folder / name):
                    k += 1
                    id_ = f"uploads-{k}/{name}"
                self._held = {**self._held, id_: Listed(id_, str(folder / name))} if id_ not in self._held else self._held
                added.append(id_)
            return added

    def __len__(self) -> int:
        return len(self._held)

    def find(self, id_: str) -> Listed | None:
        """An image by its id, None where there is none."""
        return self._held.get(id_)

    def list_page(
        self,
        histories: Mapping[str, History],
        tell: Callable[[Listed], Told | None],
        *,
        offset: int,
        limit: int,
        order: str,
        state: str,
        name: str,
        text: str,
        by_run: bool = False,
    ) -> dict[str, Any]:
        """The images from ``offset`` on of those that fit; raises InputError for numbers and words that are none of ours.

        ``tell`` says what is known of an answer; with ``by_run`` it is what the run said.
        """
        if offset < 0 or not 0 < limit <= _MOST_AT_ONCE:
            raise InputError(f"expected an offset from 0 and a limit from 1 to {_MOST_AT_ONCE}, got {offset} and {limit}")
        if order not in ORDERS or state not in STATES:
            raise InputError(f"expected an order among {', '.join(ORDERS)} and a state among {', '.join(STATES)}")
        every = self._held.values() if order == "name" else self._sort(histories, tell, by_run)
        fitting = list(_select(every, histories, tell, state, name, text.casefold()))
        shown = [self._describe(one, tell(one), histories.get(one.id)) for one in fitting[offset : offset + limit]]
        return {"total": len(fitting), "offset": offset, "images": shown}

    def _sort(self, histories: Mapping[str, History], tell: Callable[[Listed], Told | None], by_run: bool) -> list[Listed]:
        """The riskiest first, those that were reviewed last; what a run tells is sorted once."""
        if not by_run:
            order = sorted(self._held.values(), key=lambda one: -_find_risk(tell(one)))
        else:
            if self._by_risk is None or len(self._by_risk) != len(self._held):
                self._by_risk = sorted(self._held.values(), key=lambda one: -_find_own_risk(one))
            order = self._by_risk
        done = [one for one in order if one.id in histories and _fits("reviewed", histories[one.id])]
        return order if not done else [one for one in order if not _fits("reviewed", histories.get(one.id))] + done

    def _describe(self, one: Listed, told: Told | None, history: History | None) -> dict[str, Any]:
        present = None if history is None else history.fold()
        measure(one)
        return {
            "id": one.id,
            "width": one.width,
            "height": one.height,
            "state": "reviewed" if present and present.reviewed else "open",
            "corrected": present.corrected if present else 0,
            "instances": None if told is None else told.instances,
            "risk": None if told is None else round(told.risk, 6),
            "failed": one.failed,
        }


def _select(
    every: Iterable[Listed],
    histories: Mapping[str, History],
    tell: Callable[[Listed], Told | None],
    state: str,
    name: str,
    text: str,
) -> Iterator[Listed]:
    for one in every:
        if text and text not in one.id.casefold():
            continue
        if state != "all" and not _fits(state, histories.get(one.id)):
            continue
        if name and not _has_name(name, tell(one), histories.get(one.id)):
            continue
        yield one


def measure(one: Listed) -> None:
    """Find the size of an image by the head of its file, once; one that cannot be read has ``failed``."""
    if one.width or one.failed or not one.place or "::" in one.place:
        return
    try:
        one.height, one.width = read_image_size(Path(one.place))
    except InputError:
        one.failed = "it cannot be read"


def _find_own_risk(one: Listed) -> float:
    return 2.0 if one.row is None or one.row.risk is None else one.row.risk


def _find_risk(told: Told | None) -> float:
    return 2.0 if told is None else told.risk  # what nobody asked about comes first


def _fits(state: str, history: History | None) -> bool:
    present = None if history is None else history.fold()
    if state == "corrected":
        return present is not None and present.corrected > 0
    return (present is not None and present.reviewed) == (state == "reviewed")


def _has_name(name: str, told: Told | None, history: History | None) -> bool:
    if told is not None and name in told.names:
        return True
    return history is not None and any(one.name == name and one.labels for one in history.fold().decided.values())
