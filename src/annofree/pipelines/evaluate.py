"""Predictions, or a method, against ground truth: instances, or label maps by a protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error
from annofree.io.callbacks import Callbacks
from annofree.methods.registry import find_method, find_objectness_roles
from annofree.methods.tuning import POLICIES
from annofree.pipelines.plan import DEFAULTS

if TYPE_CHECKING:
    from annofree.evaluation.metrics.coverage import Coverage
    from annofree.evaluation.predict_semantic import SemanticResult
    from annofree.evaluation.score_instances import GroundTruth, InstanceEvaluation, Rows
    from annofree.runs.clock import StageTimer

__all__ = ["Evaluation", "evaluate"]

_SILENT = Callbacks()
_TASKS, _IOU, _CLUSTERS = ("instance", "semantic"), ("segm", "bbox"), ("clip", "dino")
_OF_INSTANCES = ("by", "novel", "per_class", "page", "pictures", "iou", "cluster")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gives."""

    # scores, and how they were counted
    result: InstanceEvaluation | SemanticResult
    # remarks: images without a prediction, boxes for want of masks
    notes: tuple[str, ...] = ()
    # images that a method was run on; 0 where predictions were read
    images: int = 0
    # seconds after the last image, for scoring
    seconds_scores: float = 0.0
    # the page that was written
    page: Path | None = None

    def to_json_dict(self) -> dict[str, Any]:
        """Scores and how they were counted, as plain values."""
        return self.result.to_json_dict()


def evaluate(
    truth: str | Path,
    *,
    predictions: str | Path | None = None,
    images: str | Path | None = None,
    task: str = "instance",
    method: str | None = None,
    variant: str = "default",
    models: str = "tiny",
    policy: str = "all",
    objectness: str = "found",
    device: str = "auto",
    iou: str | None = None,
    max_detections: int = 100,
    by: str | None = None,
    novel: str | None = None,
    per_class: bool = False,
    page: str | Path | None = None,
    pictures: str | Path | None = None,
    cluster: str | None = None,
    protocol: str = "default",
    split: str | None = None,
    out: str | Path | None = None,
    callbacks: Callbacks = _SILENT,
    clock: StageTimer | None = None,
) -> Evaluation:
    """Score ``predictions``, or a method on ``images``, against ground truth; every option is that of ``annofree evaluate``.

    Instances: AP and AR as COCO counts them, touching pairs, precision, recall and F1 of the answer, and where quality is lost.
    ``cluster`` (clip or dino) names predictions by clusters of features that are matched with the truth.
    Label maps (``task="semantic"``): mIoU by a ``protocol``.  ``out`` is a JSON file for the scores.  Raises InputError for
    options that do not fit together and for files that are not what they should be.

    >>> import json, tempfile
    >>> truth = "examples/scenes-truth.json"
    >>> rows = [{**row, "score": 1.0} for row in json.loads(Path(truth).read_text())["annotations"]]
    >>> predictions = Path(tempfile.mkdtemp(), "predictions.json")
    >>> _ = predictions.write_text(json.dumps(rows))
    >>> evaluate(truth, predictions=predictions).result.scores["all"]["class-aware masks"].ap
    1.0
    """
    options = dict(locals())
    method = method or DEFAULTS.get(task)
    paths = {name: None if options[name] is None else Path(options[name]) for name in ("predictions", "images", "page", "out")}
    _check(options, method)

    def build() -> Any:
        from annofree.methods.build import MethodSpec

        own: dict[str, Any] = {"objectness": objectness} if find_method(str(method)).objectness else {}
        return MethodSpec(str(method), variant, models, device, policy=policy if task == "instance" else "all", **own).build()

    timer = _Timer(callbacks, clock)
    if task == "semantic":
        return _semantic(Path(truth), paths, protocol, split, build, timer)
    return _instances(Path(truth), paths, options, build, timer)


def _check(options: dict[str, Any], method: str | None) -> None:
    """Refuse what can be refused before any file is read."""
    from annofree.evaluation.metrics.limits import check_limit
    from annofree.io.atomic import make_folder

    if options["task"] not in _TASKS:
        raise build_unknown_error("task", options["task"], _TASKS)
    if options["policy"] not in POLICIES:
        raise build_unknown_error("policy", options["policy"], POLICIES)
    find_objectness_roles(options["objectness"])
    out = None if options["out"] is None else Path(options["out"])
    if out is not None and out.is_dir():
        raise InputError(f"expected a file to write the scores to, but {out} is a folder; name one in it, {out}/scores.json")
    (_check_semantic if options["task"] == "semantic" else _check_instances)(options)
    find_method(method or "", options["variant"])
    check_limit(options["max_detections"])
    if out is not None:
        make_folder(out.parent)


def _check_semantic(options: dict[str, Any]) -> None:
    given = [f"--{name.replace('_', '-')}" for name in _OF_INSTANCES if options[name] not in (None, False)]
    given += ["--max-detections"] if options["max_detections"] != 100 else []
    if given:
        raise InputError(f"expected no {given[0]} with --task semantic; leave it out")
    if options["images"] is not None and options["predictions"] is not None:
        raise InputError("expected either --images DIR or --predictions DIR, got both")
    out = options["out"]
    if out is not None and Path(out).suffix.lower() == ".png":
        named = Path(out).with_suffix(".json")
        raise InputError(f"expected a file for the scores such as {named}, for the matrix goes to {out}")


def _check_instances(options: dict[str, Any]) -> None:
    images, predictions, pictures = options["images"], options["predictions"], options["pictures"]
    if options["protocol"] != "default" or options["split"] is not None:
        raise InputError("expected --protocol and --split with --task semantic only; leave them out")
    if (images is None) == (predictions is None):
        raise InputError("expected either --images DIR or --predictions FILE, got " + ("both" if images else "neither"))
    if options["iou"] not in (None, *_IOU):
        raise build_unknown_error("IoU", str(options["iou"]), _IOU)
    if options["cluster"] not in (None, *_CLUSTERS):
        raise build_unknown_error("source of features to cluster", str(options["cluster"]), _CLUSTERS)
    if options["cluster"] is not None and (pictures is None or predictions is None):
        raise InputError("expected --predictions and --pictures, the folder of the truth's images, with --cluster")
    if pictures is not None and ((options["page"] is None and options["cluster"] is None) or predictions is None):
        raise InputError("expected --pictures with --page or --cluster, and --predictions, only; leave it out")
    if pictures is not None and not Path(pictures).is_dir():
        raise InputError(f"expected the folder of the truth's images, got {pictures}; check --pictures")


class _Timer:
    """Progress, and the seconds when the last image was done."""

    def __init__(self, callbacks: Callbacks, clock: StageTimer | None) -> None:
        self.on_progress, self.on_note, self.clock = callbacks.on_progress, callbacks.on_note, clock
        self.images, self._at = 0, 0.0

    def finish_images(self, count: int) -> None:
        """Say that a method has looked at so many images."""
        self.images, self._at = count, 0.0 if self.clock is None else self.clock.elapsed

    def evaluation(self, result: Any, notes: tuple[str, ...] = (), page: Path | None = None) -> Evaluation:
        """The evaluation, with what scoring took."""
        since = 0.0 if self.clock is None or not self.images else self.clock.elapsed - self._at
        return Evaluation(result, notes, self.images, since, page)


def _instances(
    path: Path, paths: dict[str, Path | None], options: dict[str, Any], build: Callable[[], Any], timer: _Timer
) -> Evaluation:
    from annofree.formats.coco import CocoFile

    whole = CocoFile.read(path)  # before what is heavy, so that a missing file is refused at once
    from annofree.evaluation.metrics.limits import describe_crowded
    from annofree.evaluation.metrics.shapes import choose_iou_type
    from annofree.evaluation.score_instances import GroundTruth, Rules, score_instances, write_page
    from annofree.io.atomic import write_json
    from annofree.runs.images import open_below

    truth = GroundTruth.of(whole, options["novel"])
    groups, limit = truth.group_images(options["by"]), options["max_detections"]
    found, about, coverage = _found(truth, paths, options, build, timer)
    iou_type, boxes = choose_iou_type(truth.known, found, options["iou"])
    crowded = describe_crowded(truth.known.annotations, limit)
    notes = tuple(text for text in (about.get("clusters", {}).get("note"), boxes, coverage and coverage.note, crowded) if text)
    for text in notes:
        timer.on_note(text)
    about |= {"notes": list(notes)} | ({} if coverage is None else {"coverage": coverage.to_json_dict()})
    rules = Rules(iou_type, limit)
    result = score_instances(truth, found, groups, rules, per_class=options["per_class"], about=about)
    if paths["out"] is not None:
        write_json(paths["out"], result.to_json_dict(), indent=2)
    page = paths["page"]
    if page is not None:
        images = options["pictures"] or paths["images"]
        page = write_page(page, truth, found, result, None if images is None else open_below(Path(images)))
    return timer.evaluation(result, notes, page)


def _found(
    truth: GroundTruth, paths: dict[str, Path | None], options: dict[str, Any], build: Callable[[], Any], timer: _Timer
) -> tuple[Rows, dict[str, Any], Coverage | None]:
    """Predictions, from a file or of a method, what is said of them, and how many images of a file have any."""
    from annofree.evaluation.metrics.shapes import choose_iou_type
    from annofree.evaluation.predict_instances import predict_images, read_truth_images
    from annofree.evaluation.score_instances import read_predictions

    predictions, images = paths["predictions"], paths["images"]
    if predictions is not None:
        found, coverage = read_predictions(predictions, truth, "class-agnostic" if options["cluster"] else "class-aware")
        about: dict[str, Any] = {"predictions": predictions.name}
        if options["cluster"]:
            found, about["clusters"] = _name(truth, found, options, timer)
        return found, about, coverage
    assert images is not None  # noqa: S101  # checked
    choose_iou_type(truth.known, [], options["iou"])  # methods give masks: what the truth lacks is said before one runs
    method = build()
    rows = predict_images(method, read_truth_images(truth.known, images), truth.known, timer.on_progress).annotations
    timer.finish_images(len(truth.known.images))
    return rows, {"provenance": method.provenance}, None


def _name(truth: GroundTruth, found: Rows, options: dict[str, Any], timer: _Timer) -> tuple[Rows, dict[str, Any]]:
    """Predictions under the names of their clusters, and how these came to them."""
    from functools import partial

    from annofree.evaluation.crop_features import CropEncoder, encode_clip_crops, encode_dino_crops, encode_predictions
    from annofree.evaluation.metrics.clusters import name_clusters
    from annofree.methods.components import Models
    from annofree.runs.images import open_below

    models, of_clip = Models(options["models"], options["device"]), options["cluster"] == "clip"
    encode: CropEncoder = partial(encode_clip_crops, models.clip) if of_clip else partial(encode_dino_crops, models.dino)
    model = models.clip if of_clip else models.dino
    opened = open_below(Path(options["pictures"]))
    rows, clusters = name_clusters(
        truth.known, found, encode_predictions(truth.known, found, opened, encode, timer.on_progress)
    )
    return rows, {"features": options["cluster"], "model": model.provenance, **clusters.to_json_dict()}


def _semantic(
    path: Path, paths: dict[str, Path | None], protocol: str, split: str | None, build: Callable[[], Any], timer: _Timer
) -> Evaluation:
    from annofree.evaluation.predict_semantic import score_label_maps, score_method, write_semantic
    from annofree.evaluation.protocols.semantic import find_semantic_protocol
    from annofree.protocols import SemanticSegmenter

    rules = find_semantic_protocol(protocol)
    dataset = rules.open_dataset(path, paths["images"], split)
    if paths["predictions"] is not None:
        result = score_label_maps(paths["predictions"], dataset, rules, timer.on_progress)
    else:
        method = build()
        if not isinstance(method, SemanticSegmenter):
            raise InputError(f"expected a method that names every pixel, got {type(method).__name__}, which finds instances")
        result = score_method(method, dataset, rules, timer.on_progress)
        timer.finish_images(len(dataset))
    if paths["out"] is not None:
        write_semantic(result, paths["out"])
    return timer.evaluation(result)
