"""``annofree evaluate``: score predictions, or a method, against truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.commands.evaluate_instances import Asked, evaluate_instances
from annofree.apps.cli.help import one_of
from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import spent
from annofree.errors import InputError, unknown_name
from annofree.evaluation.metrics.limits import checked_limit
from annofree.pipelines.plan import DEFAULTS, policy_named

if TYPE_CHECKING:
    from annofree.formats.coco import CocoFile
    from annofree.runs.clock import Clock

__all__ = ["evaluate"]

# the headings of the options
_SCORED = "What is scored"
_METHOD = "The method, with --images"
_INSTANCES = "Instances"
_MAPS = "Label maps"
_WRITTEN = "What is written and told"


def evaluate(
    truth: Annotated[
        Path,
        typer.Option(
            help="COCO instances; for semantic also a folder of label maps or a data set's root.", rich_help_panel=_SCORED
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="The folder of its pictures: run a method on them.", rich_help_panel=_SCORED)
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="annotations.json of a run, or a COCO results list.", rich_help_panel=_SCORED)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="With --images: the method; else zip for instances, clip_diy for label maps.", rich_help_panel=_METHOD
        ),
    ] = None,
    variant: Annotated[str, typer.Option(help="With --images: how the method is set.", rich_help_panel=_METHOD)] = "default",
    models: Annotated[str, typer.Option(help="With --images: the preset of models.", rich_help_panel=_METHOD)] = "tiny",
    policy: Annotated[
        str,
        typer.Option(
            help="Instances, with --images: score the whole ranking (all), or the answer that segment gives.",
            rich_help_panel=_METHOD,
            **one_of("all", "answer"),
        ),
    ] = "all",
    objectness: Annotated[
        str,
        typer.Option(
            help="Semantic: where things are, for clip_diy.",
            rich_help_panel=_METHOD,
            **one_of("found", "found-bkg", "tokencut", "none"),
        ),
    ] = "found",
    device: Annotated[str, typer.Option(help="With --images: auto, cpu, cuda, ...", rich_help_panel=_METHOD)] = "auto",
    task: Annotated[
        str,
        typer.Option(
            help="Score instances or label maps.",
            rich_help_panel=_SCORED,
            **one_of("instance", "semantic"),
        ),
    ] = "instance",
    iou: Annotated[
        str | None,
        typer.Option(
            help="Instances: compare masks (segm) or boxes (bbox); else masks, or boxes where there are no masks.",
            rich_help_panel=_INSTANCES,
            **one_of("segm", "bbox"),
        ),
    ] = None,
    max_detections: Annotated[
        int,
        typer.Option(
            help="Instances: how many of an image and class count, the surest first; LVIS has 300.", rich_help_panel=_INSTANCES
        ),
    ] = 100,
    by: Annotated[
        str | None,
        typer.Option(
            help="Instances: score groups of pictures apart, by this field of the truth's images.", rich_help_panel=_INSTANCES
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="Semantic: whose rules, for example voc21 or clip-diy-coco.", rich_help_panel=_MAPS)
    ] = "default",
    split: Annotated[
        str | None, typer.Option(help="Semantic: the data set's split, where it has several.", rich_help_panel=_MAPS)
    ] = None,
    novel: Annotated[
        str | None,
        typer.Option(
            help="Instances: score these names and all others apart too; coco-17 for COCO's 17 and 48.",
            rich_help_panel=_INSTANCES,
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Instances: score each class apart too.", rich_help_panel=_INSTANCES)
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Instances: write where quality is lost, curves and the worst mistakes as a page here.",
            rich_help_panel=_INSTANCES,
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="With --page and --predictions: the folder of the truth's pictures, to cut mistakes from.",
            rich_help_panel=_INSTANCES,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.", rich_help_panel=_WRITTEN)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as JSON instead of tables.", rich_help_panel=_WRITTEN)
    ] = False,
) -> None:
    """Score instances or, with --task semantic, label maps (mIoU by a protocol).

    Instances: AP and AR as COCO counts them, how many touching pairs come out as two, precision, recall and F1 of all that is
    said, and where quality is lost: what AP and F1 would be if only names, masks or the order were right. --predictions
    scores a file, --images runs a method. Notes go to the error stream: images without a prediction, boxes for want of masks.

    Example: annofree evaluate --truth truth.json --predictions out/annotations.json
    """
    clock = command_clock()
    if task not in ("instance", "semantic"):
        raise unknown_name("task", task, ("instance", "semantic"))
    _refuse_folder(out)
    method = method or DEFAULTS[task]
    asked = Asked(by, novel, per_class, page, pictures or images, iou, max_detections, out, as_json)
    if task == "semantic":
        _refuse_options_of_instances(asked)
        _semantic(truth, images, predictions, protocol, split, method, variant, models, objectness, device, out, as_json)
        return
    if protocol != "default" or split is not None:
        raise InputError("expected --protocol and --split with --task semantic only; leave them out")
    if (images is None) == (predictions is None):
        raise InputError("expected either --images DIR or --predictions FILE, got " + ("both" if images else "neither"))
    _check(asked, pictures, predictions)

    def run(known: CocoFile) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        found = _run(clock, known, images, method, variant, models, device, policy_named(policy))
        asked_at.append((len(known.images), clock.elapsed))
        return found

    asked_at: list[tuple[int, float]] = []
    evaluate_instances(truth, predictions, run, asked)
    for count, at in asked_at if not as_json else []:
        print(f"{count} images; {spent(clock.timings(count).as_dict(), scores=clock.elapsed - at)}")


def _check(asked: Asked, pictures: Path | None, predictions: Path | None) -> None:
    """Refuse what can be refused before any file is read."""
    from annofree.io.atomic import make_folder

    if asked.iou not in (None, "segm", "bbox"):
        raise unknown_name("IoU", str(asked.iou), ("segm", "bbox"))
    checked_limit(asked.max_detections)
    if pictures is not None and (asked.page is None or predictions is None):
        raise InputError("expected --pictures with --page and --predictions only; leave it out")
    if pictures is not None and not pictures.is_dir():
        raise InputError(f"expected the folder of the truth's pictures, got {pictures}; check --pictures")
    if asked.out is not None:
        make_folder(asked.out.parent)


def _refuse_options_of_instances(asked: Asked) -> None:
    given: dict[str, Any] = {"--by": asked.by, "--novel": asked.novel, "--per-class": asked.per_class or None}
    given |= {"--page": asked.page, "--iou": asked.iou}
    given |= {"--max-detections": None if asked.max_detections == 100 else asked.max_detections}
    for option, value in given.items():
        if value is not None:
            raise InputError(f"expected no {option} with --task semantic; leave it out")


def _refuse_folder(out: Path | None) -> None:
    if out is not None and out.is_dir():
        raise InputError(f"expected a file to write the scores to, but {out} is a folder; name one in it, {out}/scores.json")


def _semantic(
    truth: Path,
    images: Path | None,
    predictions: Path | None,
    protocol: str,
    split: str | None,
    method: str,
    variant: str,
    models: str,
    objectness: str,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    from annofree.apps.cli.commands.evaluate_semantic import evaluate_semantic
    from annofree.methods.registry import entry_of, load

    def load_method() -> Any:
        asked: dict[str, Any] = {"objectness": objectness} if entry_of(method, variant).objectness else {}
        return load(method, models=models, variant=variant, device=device, **asked)

    evaluate_semantic(truth, images, predictions, protocol, split, load_method, out, as_json)


def _run(
    clock: Clock,
    truth: CocoFile,
    images: Path | None,
    method: str,
    variant: str,
    models: str,
    device: str,
    policy: str,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert images is not None  # noqa: S101
    own: dict[str, Any] = {} if policy == "all" else {"policy": policy}
    with progress("images", clock=clock, loading="loading models and images") as show:
        from annofree.evaluation.predict_instances import predicted, truth_images
        from annofree.methods.registry import load

        segmenter = load(method, models=models, variant=variant, device=device, **own)
        found = predicted(segmenter, truth_images(truth, images), truth, show)
    return found.annotations, {"provenance": segmenter.provenance}
