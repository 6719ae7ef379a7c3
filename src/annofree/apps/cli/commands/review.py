"""``annofree review``: which pictures of a run to check first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.errors import InputError, unknown_name

if TYPE_CHECKING:
    from annofree.evaluation.review.rank import Look, Review
    from annofree.evaluation.review.risk import Part
    from annofree.formats.annotations import Thing
    from annofree.protocols import Segmenter
    from annofree.runs.report import Opener
    from annofree.structures import Vocabulary

__all__ = ["review"]

_TOLD = 10


def review(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", show_default=False)],
    worst: Annotated[int, typer.Option(help="Images to list and to write.", min=1)] = 100,
    out: Annotated[Path | None, typer.Option(help="The folder to write to; else review/ in the run.")] = None,
    risk: Annotated[
        str | None, typer.Option(help="What to rank by; else the best that there is: see docs/review.md.", show_default=False)
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave weaker instances out, as you would when you use them.")] = 0.0,
    look: Annotated[
        str | None, typer.Option(help="Ask the run's models again of changed pictures: flip, shift, scale, joined by commas.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run of the same pictures, by another method, variant or model.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder of images, for the page and for --look; else the one that the run was given."),
    ] = None,
    device: Annotated[str, typer.Option(help="For --look: auto, cpu, cuda, ...")] = "auto",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """List the images of a run that are the likeliest to be wrong, the worst first, without any label.

    Writes review.html, a page to go through with j and k, review.json, with the reasons, and those images as COCO with
    overlays; the folder can be exported and reported as a run can. Exit code 0: written; 2: the call was wrong.

    Example: annofree review out --worst 100
    """
    from annofree.evaluation.review.page import write_review_page
    from annofree.evaluation.review.rank import rank, things_by_name, write_review
    from annofree.runs.store.summary import read_about

    about = read_about(run)
    least = max(min_score, float((about.get("settings") or {}).get("min_score") or 0.0))
    with progress("images", quiet, clock=None if look is None else command_clock()) as show:
        again = _look(look, run, about, images, device, least) if look is not None else None
        other = things_by_name(against / "annotations.json", min_score) if against is not None else None
        ranked = rank(run, worst, by=risk, min_score=min_score, look=again, against=other, on_progress=show)
    place = out or run / "review"
    rows = write_review(ranked, run, place)
    write_review_page(ranked, run, place, rows, _opened(run, images))
    if not quiet:
        print(_told(ranked, place))


def _told(review: Review, place: Path) -> str:
    from annofree.evaluation.review.rank import reasons
    from annofree.evaluation.review.risk import MEANINGS

    lines = [f"the riskiest {len(review.worst)} of {review.pictures} pictures by {review.by} ({MEANINGS[review.by]}):"]
    for number, ranked in enumerate(review.worst[:_TOLD], 1):
        name = "".join(c if c.isprintable() else "?" for c in str(ranked.answer.image["file_name"]))
        lines.append(f"{number:4} {ranked.risk:.2f} {name}: {'; '.join(reasons(ranked, review.by))}")
    lines += [f"... {len(review.worst) - _TOLD} more"] if len(review.worst) > _TOLD else []
    lines += [f"{len(review.unseen)} pictures could not be opened again"] if review.unseen else []
    return "\n".join([*lines, f"written: {place}/review.html, review.json, annotations.json, overlays/"])


def _opened(run: Path, images: Path | None) -> Opener | None:
    """Open the images of a run; None where it is not known where they are, and the page shows overlays."""
    from annofree.apps.cli.commands.report import opener
    from annofree.runs.store.summary import pictures_root

    folder = images or pictures_root(run)
    return None if folder is None else opener(folder)


def _look(views: str, run: Path, about: Mapping[str, Any], images: Path | None, device: str, min_score: float) -> Look:
    """Load the run's method, and ask it of changed pictures."""
    from annofree.apps.cli.commands.report import opener
    from annofree.evaluation.review.consistency_views import VIEWS
    from annofree.runs.store.summary import pictures_root
    from annofree.structures import Vocabulary

    names = tuple(dict.fromkeys(part.strip() for part in views.split(",")))
    for name in names:
        if name not in VIEWS:
            raise unknown_name("view", name, VIEWS)
    folder = images or pictures_root(run)
    if folder is None:
        raise InputError(
            "expected --images, the folder of pictures that the run was given, for --look; it is not known any more"
        )
    try:
        settings = about["settings"]
        vocabulary = Vocabulary.from_entries(tuple(words) for words in settings["classes"])
        method = _method(settings, device, vocabulary)
    except (KeyError, TypeError) as problem:
        raise InputError(f"expected run.json of {run} with the run's settings, but it lacks {problem}") from None
    return _looker(method, vocabulary, opener(folder), names, min_score)


def _method(settings: Mapping[str, Any], device: str, vocabulary: Vocabulary) -> Segmenter:
    """The method that made the instances of a run, set as it was."""
    from annofree.pipelines.plan import Plan

    name, asked = settings["methods"]["instance"], settings.get("method")
    own = asked is None or asked.split("+")[0].strip() == name  # the variant is that of the method named first
    variant, objectness = settings["variant"] if own else "default", settings.get("objectness") or "found"
    negatives = tuple(settings.get("negatives") or ())
    plan = Plan(
        ("instance",),
        name,
        variant,
        settings["models"],
        objectness,
        device,
        (),
        negatives,
        policy=settings.get("policy", "all"),
    )
    found = plan.tasks(vocabulary).instances
    assert found is not None  # noqa: S101 -- it is the task that was asked for
    return found


def _looker(method: Segmenter, vocabulary: Vocabulary, opened: Opener, names: Sequence[str], min_score: float) -> Look:
    from annofree.evaluation.review.consistency_views import VIEWS, jitter

    def look(file_name: str, things: Sequence[Thing]) -> Part:
        image = opened(file_name)
        encodings = method.encode([VIEWS[name].look(image) for name in names])
        parts: dict[str, Part] = {}
        for name, encoding in zip(names, encodings, strict=True):
            found = method.instances(encoding, vocabulary)
            again = VIEWS[name].again(found[found.scores >= min_score], image.size)
            parts[name] = VIEWS[name].compare(things, again, image.size)
        return jitter(parts)

    return look
