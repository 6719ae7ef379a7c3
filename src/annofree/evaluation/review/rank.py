"""Which images of a run to check first: a risk for each from its answer, and the riskiest written out for people."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from annofree.errors import InputError, build_unknown_error
from annofree.evaluation.review.risk import (
    MEANINGS,
    Part,
    Scale,
    compute_joint_risk,
    compute_stored_parts,
    measure_disagreement,
)
from annofree.formats.annotations import Annotation, list_images
from annofree.formats.coco import CocoFile
from annofree.io.atomic import make_folder, write_json
from annofree.io.coco_stream import stream_coco
from annofree.io.files.paths import confine, copy_file
from annofree.runs.store.finals import require_intact, require_unchanged

__all__ = [
    "Answered",
    "Ranked",
    "Review",
    "choose_default_risk",
    "list_reasons",
    "rank_images",
    "read_answers",
    "read_instances_by_name",
    "write_review",
]

_REASONS = 3
_LONGEST_NAME = 120

Look = Callable[[str, Sequence[Annotation]], Part]
"""Looks at an image again, by its file name, and returns how far the new answers disagree with the stored one."""


@dataclass(frozen=True, eq=False)
class Answered:
    """One image of a run with its answer: ``image`` and ``rows`` as COCO has them, ``things`` the same as things."""

    image: dict[str, Any]
    rows: list[dict[str, Any]]
    things: tuple[Annotation, ...]


@dataclass(frozen=True, eq=False)
class Ranked:
    """One image with its parts, and the rows that go with it."""

    answer: Answered
    parts: Mapping[str, Part]
    risk: float


@dataclass
class Review:
    """The riskiest ``worst`` images of ``pictures`` in all, the riskiest first, by the part named ``by``.

    ``unseen`` are images that could not be opened again, with the reason, by name; ``folder`` is where it was written.
    """

    by: str
    pictures: int
    worst: list[Ranked]
    categories: list[dict[str, Any]]
    min_score: float = 0.0
    unseen: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("review")


def read_answers(path: Path, min_score: float = 0.0) -> Iterator[Answered]:
    """Yield the images of a COCO file with the instances that score ``min_score`` or more, one in memory at a time.

    Images come in the order of their annotations, then those without any.  Raises InputError when the annotations of an
    image do not stand together, as annofree writes them, and for all that ``stream_coco`` and ``list_images`` refuse.
    """
    categories, images = _lists(path)
    left = dict(images)
    rows: list[dict[str, Any]] = []
    for kind, row in stream_coco(path):
        if kind != "annotations":
            continue
        if rows and row["image_id"] != rows[0]["image_id"]:
            yield _answered(left, images, categories, rows, min_score)
            rows = []
        rows.append(row)
    if rows:
        yield _answered(left, images, categories, rows, min_score)
    for image in left.values():
        yield Answered(image, [], ())


def _lists(path: Path) -> tuple[list[dict[str, Any]], dict[Any, dict[str, Any]]]:
    """The categories and the images by id."""
    if not path.is_file():
        raise InputError(f"expected the instances of a run at {path}, and there are none; run --task instance first")
    kept: dict[str, list[dict[str, Any]]] = {"categories": [], "images": []}
    for kind, row in stream_coco(path):
        if kind in kept:
            kept[kind].append(row)
    return kept["categories"], {image["id"]: image for image in kept["images"]}


def _answered(
    left: dict[Any, dict[str, Any]],
    images: Mapping[Any, dict[str, Any]],
    categories: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    min_score: float,
) -> Answered:
    id_ = rows[0]["image_id"]
    if id_ in images and id_ not in left:
        raise InputError(f"expected the annotations of each image together, those of image {id_} are apart; sort the file")
    kept = [row for row in rows if row.get("score", 1.0) >= min_score]
    image = left.pop(id_, None)
    things = list_images(CocoFile([] if image is None else [image], categories, kept))  # raises where there is no image
    return Answered(image or {}, kept, things[0].things if things else ())


def read_instances_by_name(path: Path, min_score: float = 0.0) -> dict[str, tuple[Annotation, ...]]:
    """Return the instances of another run by file name, all in memory."""
    return {str(a.image["file_name"]): a.things for a in read_answers(path, min_score)}


def choose_default_risk(min_score: float) -> str:
    """Return the best risk of benchmarks/review.py, for all instances or for confident ones.

    >>> choose_default_risk(0.0), choose_default_risk(0.5)
    ('doubt', 'score')
    """
    return "score" if min_score > 0 else "doubt"


def rank_images(
    run: Path,
    worst: int,
    *,
    by: str | None = None,
    min_score: float = 0.0,
    look: Look | None = None,
    against: Mapping[str, Sequence[Annotation]] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Review:
    """Rank the images of a run by a risk and return the ``worst``, with all parts and reasons.

    ``min_score`` drops instances of lower score.  ``look`` adds the part jitter, ``against``,
    the instances of another run by file name, the part against.  Raises InputError for a risk that there is not.
    """
    path = run / "annotations.json"
    if by is not None and by not in MEANINGS:
        raise build_unknown_error("risk", by, MEANINGS)
    missing = {"jitter": look is None, "against": against is None, "joint": look is None and against is None}
    if by is not None and missing.get(by):
        needs = {"jitter": "--look", "against": "--against RUN", "joint": "--look or --against RUN"}
        raise InputError(f"expected {needs[by]} for the risk {by}, got none")
    ours = by or choose_default_risk(min_score)
    require_unchanged(run, path.name, "run.json")
    categories, images = _lists(path)
    if against is not None:
        _check_shared(against, [str(i["file_name"]) for i in images.values()])
    scale, review = _scale(path, min_score), Review(ours, len(images), [], categories, min_score)
    places = {id_: place for place, id_ in enumerate(images)}  # of equal risks, the first of the run comes first
    heap: list[tuple[float, int, Ranked]] = []
    for number, answer in enumerate(read_answers(path, min_score)):
        on_progress(number, len(images))
        parts = _parts(answer, scale, look, against, review.unseen)
        value = parts[ours].value if ours in parts else 1.0  # what cannot be looked at has to be
        heapq.heappush(heap, (value, -places[answer.image["id"]], Ranked(answer, parts, value)))
        if len(heap) > worst:
            heapq.heappop(heap)
    on_progress(len(images), len(images))
    review.worst = [ranked for _, _, ranked in sorted(heap, key=lambda item: (-item[0], -item[1]))]
    return review


def _check_shared(against: Mapping[str, Any], names: Sequence[str]) -> None:
    absent = [name for name in names if name not in against]
    if len(absent) == len(names):
        raise InputError(f"expected another run of the same images, but it has none of them, such as {names[:1]}")


def _scale(path: Path, min_score: float) -> Scale:
    low, high = 1.0, 0.0
    for kind, row in stream_coco(path):
        if kind == "annotations" and row.get("score", 1.0) >= min_score:
            low, high = min(low, row.get("score", 1.0)), max(high, row.get("score", 1.0))
    return Scale(low, high) if low <= high else Scale()


def _parts(
    answer: Answered,
    scale: Scale,
    look: Look | None,
    against: Mapping[str, Sequence[Annotation]] | None,
    unseen: dict[str, str],
) -> dict[str, Part]:
    parts, name = compute_stored_parts(answer.things, scale), str(answer.image["file_name"])
    if look is not None:
        try:
            parts["jitter"] = look(name, answer.things)
        except InputError as problem:
            unseen[name] = str(problem)
    if against is not None and name in against:
        parts["against"] = measure_disagreement(answer.things, against[name], "in the other run")
    second = [parts[kind] for kind in ("jitter", "against") if kind in parts]
    return parts | ({"joint": compute_joint_risk(answer.things, second)} if second else {})


def list_reasons(ranked: Ranked, by: str) -> list[str]:
    """Say why an image should be checked: the part that it was ranked by, then the largest others of 0.5 or more."""
    first = [ranked.parts[by].reason] if by in ranked.parts else ["it could not be looked at again"]
    rest = sorted((p for name, p in ranked.parts.items() if name != by and p.value >= 0.5), key=lambda p: -p.value)
    return list(dict.fromkeys(first + [p.reason for p in rest]))[:_REASONS]


def write_review(review: Review, run: Path, out: Path) -> list[dict[str, Any]]:
    """Write review.json, and the worst images as COCO with their overlays, named so that they sort in the order of risk.

    ``out`` is laid out as a run is, so that it can be exported and reported.  Returns the rows of its images, in that order.
    Raises InputError when it cannot be made or when it is the run itself.
    """
    if out.resolve() == run.resolve():
        raise InputError("expected a folder for the review apart from the run, or its annotations would be lost")
    _refuse_foreign(out)
    require_intact(run, [str(ranked.answer.image.get("overlay") or "") for ranked in review.worst])
    make_folder(out / "overlays")
    for left in (out / "overlays").glob("[0-9]*.jpg"):
        left.unlink()
    file = CocoFile(categories=review.categories, info={"description": f"the riskiest {len(review.worst)}, by {review.by}"})
    listed = []
    for place, ranked in enumerate(review.worst, 1):
        image = {k: v for k, v in ranked.answer.image.items() if k not in ("overlay", "labels", "panoptic")}
        image |= {"rank": place, "risk": round(ranked.risk, 6)} | _overlay(run, out, ranked.answer.image, place)
        file.images.append(image)
        file.annotations += ranked.answer.rows
        listed.append(_line(place, ranked, review.by))
    file.write(out / "annotations.json")
    if (run / "run.json").is_file():
        copy_file(run / "run.json", out / "run.json")
    about = {"by": review.by, "parts": MEANINGS, "min_score": review.min_score, "pictures": review.pictures}
    write_json(out / "review.json", {**about, "not_looked_at": review.unseen, "worst": listed}, indent=1)
    return file.images


def _refuse_foreign(out: Path) -> None:
    """Raise InputError for a folder with results that no review wrote."""
    names = ("annotations.json", "run.json", "overlays", "shards", "review.html", "labels")
    found = [name for name in names if (out / name).exists()]
    if found and (not (out / "review.json").is_file() or (out / "shards").exists()):
        raise InputError(f"expected a new folder, or that of a review, but {out} has {found[0]}; choose another --out")


def _line(place: int, ranked: Ranked, by: str) -> dict[str, Any]:
    parts = {name: round(part.value, 4) for name, part in ranked.parts.items()}
    name, id_ = ranked.answer.image["file_name"], ranked.answer.image["id"]
    return {
        "rank": place,
        "file_name": name,
        "image_id": id_,
        "risk": round(ranked.risk, 4),
        "reasons": list_reasons(ranked, by),
        "parts": parts,
    }


def _overlay(run: Path, out: Path, image: Mapping[str, Any], place: int) -> dict[str, str]:
    """Copy the overlay of an image; nothing where there is none."""
    try:
        source = confine(run, str(image["overlay"]))
        stem = PurePosixPath(str(image["overlay"])).stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")
        name = f"overlays/{place:04}-{stem}.jpg"
        copy_file(source, out / name)
    except (KeyError, InputError, FileNotFoundError, IsADirectoryError):
        return {}
    return {"overlay": name}
