"""Masks that are there already, of a run or in a COCO file, get names: a run of its own, like that of ``segment``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.pipelines.plan import Plan, parse_negatives
from annofree.pipelines.segment import RunResult, parse_overlaps, run_plan
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.detections.nms import Overlaps
    from annofree.runs.clock import StageTimer
    from annofree.runs.inputs import Inputs
    from annofree.structures import Classes

__all__ = ["LOOKS", "REFINEMENTS", "SCORES", "name_masks"]

LOOKS = ("box", "masked", "pooled")
"""What CLIP looks at: the crop of the box, that with all outside of the mask blanked, or the box in one pass over the image."""

REFINEMENTS = ("none", "box", "box+point")
"""How SAM draws each mask anew: not, by its box, or then again by the box of what it drew and the center of that."""

SCORES = ("geometric", "own")
"""The geometric mean of a mask's own score and its name's probability, or its own score alone."""

_SILENT = Callbacks()


def name_masks(
    masks: str | Path,
    classes: Classes,
    *,
    out: str | Path,
    images: str | Path | None = None,
    look: str = "box",
    refine: str = "none",
    score: str = "geometric",
    negatives: str | Iterable[str] | None = None,
    models: str = "fast",
    policy: str = "answer",
    overlaps: str | Overlaps | None = None,
    min_score: float = 0.0,
    device: str = "auto",
    precision: str = "float32",
    overlays: bool = True,
    keep_encodings: bool = False,
    fresh: bool = False,
    retry: bool = False,
    batch_size: int | None = None,
    limit: int | None = None,
    callbacks: Callbacks = _SILENT,
    clock: StageTimer | None = None,
) -> RunResult:
    """Name the masks of a run or of a COCO file by CLIP, whoever made them and whatever they were called.

    ``masks`` is the folder of a run, or a COCO file with ``images``, the folder of its images.  ``look`` is what CLIP sees of a
    mask: the crop of its ``box``, the same with all outside of the mask blanked (``masked``), or the box in one pass
    (``pooled``).  ``refine`` lets SAM draw each mask anew, by its ``box``, or twice (``box+point``).  ``score`` is the
    ``geometric`` mean of the mask's own score and its name's probability, or its ``own`` alone.  All other options mean what
    they mean in ``segment``, and the result is a run as it makes them; images without masks are in it with none.

    Raises InputError for what holds no masks or whose images are not there, and as ``segment`` does.

    >>> import annofree, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> found = annofree.segment("examples/scenes/oranges.jpg", method="maskcut", models="tiny", device="cpu", out=folder / "a")
    >>> named = annofree.name_masks(folder / "a", "orange, elephant", models="tiny", device="cpu", out=folder / "b")
    >>> named.tasks, named.failed
    (('instance',), {})
    """
    for what, value, known in (("look", look, LOOKS), ("refinement", refine, REFINEMENTS), ("score", score, SCORES)):
        if value not in known:
            raise build_unknown_error(what, value, known)
    for name, number, least in (("limit", limit, 1), ("batch_size", batch_size, 1)):
        check_range(name, number, least)
    check_range("min_score", min_score, 0, 1)
    vocabulary, out = Vocabulary.of(classes), Path(out)
    plan = Plan(
        ("instance",),
        str(_find_place(Path(masks), out)),
        "default" if refine == "none" else refine,
        models,
        "found",
        device,
        (),
        parse_negatives(negatives, vocabulary),
        precision,
        parse_overlaps(overlaps),
        policy,
        {"look": look, "score": score},
    )
    plan.check()
    inputs = _find_images(Path(masks), None if images is None else Path(images), out, limit)
    options: dict[str, Any] = {"overlays": overlays, "keep_encodings": keep_encodings, "fresh": fresh, "retry": retry}
    return run_plan(inputs, vocabulary, plan, out, (1, 1), min_score, batch_size, callbacks=callbacks, clock=clock, **options)


def _find_place(masks: Path, out: Path) -> Path:
    """Where the masks are; refuses what holds none, a run that was changed since, and a run as the output folder."""
    from annofree.methods.class_agnostic.stored_masks import is_stored_masks
    from annofree.runs.store.finals import require_unchanged

    if not is_stored_masks(masks):
        raise InputError(f"expected the folder of a run with instances, or a COCO file (.json), got {masks}")
    if masks.resolve() in (out.resolve(), (out / "annotations.json").resolve()):
        raise InputError(f"expected another folder for results than {out}, which has the masks; choose another --out")
    if masks.is_dir():
        require_unchanged(masks, "annotations.json", "run.json")
    return masks.resolve()


def _find_images(masks: Path, images: Path | None, out: Path, limit: int | None) -> Inputs:
    """The images of stored masks, in their order; those that are not there fail by name, all of them at once."""
    from annofree.io.files.paths import confine_name
    from annofree.methods.class_agnostic.stored_masks import StoredMasks
    from annofree.runs.inputs import Inputs

    root = _find_root(masks, images)
    if root.resolve() == out.resolve():
        raise InputError(f"expected another folder for results than {out}, which has the images; choose another --out")
    names = StoredMasks(masks).list_images()
    if not names:
        raise InputError(f"expected images in {masks}, got none; name another file")
    missing = [name for name in names if not confine_name(root, name).is_file()]
    if len(missing) == len(names):
        raise InputError(
            f"expected the {len(names)} images of {masks} in {root}, but none is there, not even {missing[0]}; "
            "name the folder that its file names count from: --images"
        )
    return Inputs(names[:limit], root)


def _find_root(masks: Path, images: Path | None) -> Path:
    from annofree.runs.store.summary import find_images_root

    root = images if images is not None or not masks.is_dir() else find_images_root(masks)
    if root is None or not root.is_dir():
        raise InputError(f"expected --images, the folder of the images of {masks}, got {root or 'none'}")
    return root.resolve()
