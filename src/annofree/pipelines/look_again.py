"""A run's method, asked again of changed views of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error
from annofree.runs.images import find_image_opener

if TYPE_CHECKING:
    from annofree.evaluation.review.rank import Look
    from annofree.evaluation.review.risk import Part
    from annofree.formats.annotations import Annotation
    from annofree.protocols import Segmenter
    from annofree.render.page_images import Opener
    from annofree.structures import Vocabulary

__all__ = ["look_again"]


def look_again(
    views: str | Sequence[str],
    run: Path,
    about: Mapping[str, Any],
    images: str | Path | None,
    device: str,
    min_score: float,
) -> Look:
    """Load the method of a run, and return what asks it of some ``views`` of an image and compares the answers.

    ``about`` is the run's run.json.  Instances that score less than ``min_score`` are left out.  Raises InputError for a view
    that there is not, for images that are not known any more, and for a run.json without the run's settings.
    """
    from annofree.evaluation.review.consistency_views import VIEWS
    from annofree.structures import Vocabulary

    parts = views.split(",") if isinstance(views, str) else views
    names = tuple(dict.fromkeys(part.strip() for part in parts))
    for name in names:
        if name not in VIEWS:
            raise build_unknown_error("view", name, VIEWS)
    opener = find_image_opener(run, images)
    if opener is None:
        raise InputError("expected --images, the folder of images that the run was given, for --look; it is not known any more")
    try:
        settings = about["settings"]
        vocabulary = Vocabulary.from_entries(tuple(words) for words in settings["classes"])
        method = _method(settings, device, vocabulary)
    except (KeyError, TypeError) as problem:
        raise InputError(f"expected run.json of {run} with the run's settings, but it lacks {problem}") from None
    return _look(method, vocabulary, opener, names, min_score)


def _method(settings: Mapping[str, Any], device: str, vocabulary: Vocabulary) -> Segmenter:
    """The method that made the instances of a run, set as it was."""
    from annofree.methods.registry import find_method, split_methods
    from annofree.pipelines.plan import Plan

    name, asked = settings["methods"]["instance"], settings.get("method")
    own = asked is None or split_methods(asked)[0] == name  # the variant is that of the method named first
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
        settings=settings.get("settings", {}),
        detector=Path(settings["detector"]) if settings.get("detector") else None,
        floor=settings.get("floor"),
    )
    if find_method(name, variant).stored:
        raise InputError("expected a run that can look again, got one of stored masks, which stay the same; leave --look out")
    found = plan.load_tasks(vocabulary).instances
    assert found is not None  # noqa: S101 -- it is the task that was asked for
    return found


def _look(method: Segmenter, vocabulary: Vocabulary, opened: Opener, names: Sequence[str], min_score: float) -> Look:
    from annofree.evaluation.review.consistency_views import VIEWS, combine_views

    def look(file_name: str, things: Sequence[Annotation]) -> Part:
        image = opened(file_name)
        encodings = method.encode([VIEWS[name].look(image) for name in names])
        parts: dict[str, Part] = {}
        for name, encoding in zip(names, encodings, strict=True):
            found = method.instances(encoding, vocabulary)
            again = VIEWS[name].map_back(found[found.scores >= min_score], image.size)
            parts[name] = VIEWS[name].compare(things, again, image.size)
        return combine_views(parts)

    return look
