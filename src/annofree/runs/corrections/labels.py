"""The labels of a run or a workspace as people corrected them, as formats take them; each says whose it is.

An annotation has ``source`` (machine or human), and where a person decided ``who``, ``when`` and the tier S4; an image that was
looked at has ``reviewed``.  What was rejected or deleted is out; a reviewed image without instances stays, as a negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, AnnotatedImages, Annotation
from annofree.formats.coco_annotations import read_annotated_images
from annofree.ops.rle import compute_rle_box
from annofree.runs.corrections.acts import History, Instance, combine, name_instance
from annofree.runs.corrections.answers import Answer, AnswerStore, read_workspace
from annofree.runs.corrections.journal import read_histories

__all__ = ["TIER", "Corrected", "read_corrected", "to_annotation"]

TIER = "S4"
"""The supervision of what a person decided."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """Labels as people corrected them: ``histories`` of their acts by image, and ``images``, read one at a time."""

    histories: Mapping[str, History]
    images: AnnotatedImages

    @property
    def touched(self) -> set[str]:
        """The images that were reviewed or corrected."""
        folded = {name: history.fold() for name, history in self.histories.items()}
        return {name for name, present in folded.items() if present.reviewed or present.decided}

    def select_touched(self) -> AnnotatedImages:
        """The images that people reviewed or corrected alone."""
        touched, each = self.touched, self.images.each
        return AnnotatedImages(
            self.images.categories, lambda: (one for one in each() if one.file_name in touched), self.images.info
        )


def read_corrected(folder: Path, info: Mapping[str, Any] | None = None) -> Corrected:
    """Read the labels of a run or a workspace with the corrections that are there.

    Raises InputError for a folder that is neither, and for files that are damaged.
    """
    told, histories = read_workspace(folder), read_histories(folder)
    run = folder / "annotations.json"
    asked = str(told.get("asked", ""))
    answers = AnswerStore(folder)
    if run.is_file():
        base = read_annotated_images(run)
        categories = [dict(category) for category in base.categories]
        machine: Callable[[], Iterable[AnnotatedImage]] = base.each
    elif told or histories:
        categories, machine = [], lambda: ()
    else:
        raise InputError(
            f"expected a run with instances, or a workspace of annofree serve, got {folder}, which has neither "
            "annotations.json nor serve/workspace.json"
        )
    names = [str(category["name"]) for category in categories]
    names += [str(words[0]) for words in told.get("classes", [])]
    names += [one.name for history in histories.values() for one in history.fold().decided.values()]
    more = [name for name in dict.fromkeys(names) if name not in {c["name"] for c in categories}]
    first = max((int(c["id"]) for c in categories), default=0) + 1
    categories += [{"id": first + k, "name": name} for k, name in enumerate(more)]
    known = {category["name"] for category in categories}

    def each() -> Iterator[AnnotatedImage]:
        seen = set[str]()
        for image in machine():
            seen.add(image.file_name)
            yield _correct(
                image, histories.get(image.file_name), answers.read(image.file_name, asked) if asked else None, known
            )
        yield from _list_others(seen, histories, answers, asked, known)

    about = dict(info or {}) | {"corrections": _summarize(histories)}
    return Corrected(histories, AnnotatedImages(categories, each, about))


def _list_others(
    seen: set[str], histories: Mapping[str, History], answers: AnswerStore, asked: str, known: set[str]
) -> Iterator[AnnotatedImage]:
    """Images that no run has: uploads, and those of a folder that were looked at."""
    found = {name for name, _ in answers.list_all(asked)} if asked else set[str]()
    for name in sorted((found | histories.keys()) - seen):
        history, answer = histories.get(name), answers.read(name, asked)
        size = answer.size if answer is not None else history.size if history is not None else (0, 0)
        if any(size):
            yield _correct(AnnotatedImage(name, size), history, answer, known)


def _correct(image: AnnotatedImage, history: History | None, answer: Answer | None, known: set[str]) -> AnnotatedImage:
    things = image.things if answer is None else ()
    machine = list(answer.instances) if answer is not None else [_to_instance(thing, image.size) for thing in things]
    present = (history or History()).fold()
    kept = [to_annotation(one) for one in combine(machine, present) if one.labels and one.name in known]
    row = {key: value for key, value in (image.row or {}).items() if key != "id"} | {"reviewed": present.reviewed}
    if present.reviewed:
        row |= {"who": present.who, "when": present.when}
    return AnnotatedImage(image.file_name, image.size, tuple(kept), row)


def _to_instance(thing: Annotation, size: tuple[int, int]) -> Instance:
    if thing.rle is None:
        raise InputError("expected instances with masks, got a box alone; make the run again")
    rle = {"size": list(size), "counts": thing.rle["counts"]}
    return Instance(name_instance(thing.name, rle), thing.name, rle, thing.score)


def to_annotation(one: Instance) -> Annotation:
    """An instance as formats take it, with whose it is."""
    row: dict[str, Any] = {"source": one.source}
    if one.state == "accepted":
        row |= {"state": one.state, "who": one.who, "when": one.when, "tier": TIER}
    return Annotation(one.name, compute_rle_box(one.rle), one.rle, one.score, row=row)


def _summarize(histories: Mapping[str, History]) -> dict[str, Any]:
    folded = [history.fold() for history in histories.values()]
    decided = [one for present in folded for one in present.decided.values()]
    who = sorted({str(one.who) for one in decided} | {str(present.who) for present in folded if present.reviewed})
    return {"tier": TIER, "reviewed": sum(p.reviewed for p in folded), "instances": len(decided), "who": who}
