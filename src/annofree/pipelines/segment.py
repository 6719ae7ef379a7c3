"""Images and names in; instances, label maps and panoptic maps out: in memory, or as a run in a folder that resumes."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from annofree.errors import InputError, build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.methods.registry import is_class_agnostic, list_methods, locate_detector
from annofree.pipelines.plan import Plan, parse_negatives, parse_stuff, parse_tasks
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.detections.nms import Overlaps
    from annofree.io.image_inputs import ImageInput
    from annofree.runs.clock import StageTimer
    from annofree.runs.config import EncodingSource, RunConfig
    from annofree.runs.engines.engine import Engine
    from annofree.runs.engines.ray_pool import Cluster
    from annofree.runs.inputs import Inputs
    from annofree.runs.run import Run
    from annofree.runs.tasks import Prediction, Tasks, TasksInfo
    from annofree.structures import Classes, Detections

__all__ = [
    "ENGINES",
    "RunResult",
    "SegmentOptions",
    "choose_device",
    "execute",
    "parse_engine",
    "parse_overlaps",
    "parse_shard",
    "report_complete",
    "run_plan",
    "segment",
]

ENGINES = ("local", "ray")
"""Who does the work: this process, or workers that Ray has."""

_SILENT = Callbacks()
_MANY_TEXTS = 2000
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class RunResult:
    """A complete run in a folder."""

    # the folder of the run
    out: Path
    # what run.json holds
    summary: dict[str, Any]
    # whether the run was complete before this call
    was_complete: bool = False

    @property
    def failed(self) -> dict[str, str]:
        """Why each image failed that did, by its path."""
        return dict(self.summary["failed"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """What was asked for."""
        return tuple(self.summary["settings"]["tasks"])

    def read_detections(self) -> Iterator[tuple[str, Detections]]:
        """The instances of each image by its path below the run's root, one image in memory at a time.

        Raises InputError where the run has no instances.
        """
        from annofree.runs.store.reader import StoredRun

        for image in StoredRun.read(self.out, images=self.out).read_images():
            yield image.file_name, image.found


class SegmentOptions(TypedDict, total=False):
    """The options of ``segment`` beside its images, classes and output folder."""

    # instance, semantic, panoptic, or several: joined by commas or listed
    task: str | Iterable[str]
    # for panoptic maps: classes that are no instances, such as sky
    stuff: str | Iterable[str] | None
    # distractors, such as wall and floor: they compete with the classes and are dropped from the output
    negatives: str | Iterable[str] | None
    # a method, two joined by + for the tasks each can do, or None for the preset's own
    method: str | None
    # named settings of the method
    variant: str
    # preset, or names of models joined by +
    models: str
    # where objects are, for clip_diy and mask_crops: found, found-bkg, tokencut, maskcut, cutler, instances, none, or a place
    objectness: str
    # answer: the instances that the models are sure of; all: the whole ranking
    policy: str
    # which of two overlapping instances stays, such as "within=0.5, prefer=whole"; None for what the policy does
    overlaps: str | Overlaps | None
    # the folder of a detector in the place of the preset's, for methods that take one, such as consensus; where no method is
    # named and the preset's own takes none, open_vocabulary is asked
    detector: str | Path | None
    # instances that score less are left out, 0 .. 1
    min_score: float
    # auto, cpu, cuda, ...
    device: str
    # what the image encoders of CLIP and SAM compute in: float32, bfloat16, float16
    precision: str
    # refuse models of more supervision: S0 .. S3
    max_tier: str | None
    # refuse models of other licenses: permissive, or SPDX identifiers joined by commas
    license: str | None
    # draw what was found over the images, with an output folder
    overlays: bool
    # keep what ``relabel`` needs to ask for other names
    keep_encodings: bool
    # delete the run in the output folder and start again
    fresh: bool
    # try images again that failed before
    retry: bool
    # process shard I of N, as "I/N": images are dealt out in chunks of about 64
    shard: str | tuple[int, int] | None
    # images encoded at once; by default 4, and 1 on a CPU with models of more than 100 MB
    batch_size: int | None
    # the first N images only
    limit: int | None
    # who does the work: local, this process; ray, workers on the machines of a cluster or, without an address, on this one
    engine: str
    # of the Ray cluster, host:port or auto
    address: str | None
    # how many there are with ray; by default one a GPU, or one for four processors
    workers: int | None
    # what is called on progress, notes and failures
    callbacks: Callbacks
    # counts the seconds of run.json; one that runs already counts what came before, too
    clock: StageTimer | None


@overload
def segment(
    images: ImageInput | Iterable[ImageInput],
    classes: Classes | None = None,
    *,
    out: None = None,
    **options: Unpack[SegmentOptions],
) -> list[Prediction]: ...
@overload
def segment(
    images: ImageInput | Iterable[ImageInput],
    classes: Classes | None = None,
    *,
    out: str | Path,
    **options: Unpack[SegmentOptions],
) -> RunResult: ...
def segment(
    images: ImageInput | Iterable[ImageInput],
    classes: Classes | None = None,
    *,
    task: str | Iterable[str] = "instance",
    stuff: str | Iterable[str] | None = None,
    negatives: str | Iterable[str] | None = None,
    method: str | None = None,
    variant: str = "default",
    models: str = "fast",
    objectness: str = "found",
    policy: str = "answer",
    overlaps: str | Overlaps | None = None,
    detector: str | Path | None = None,
    min_score: float = 0.0,
    device: str = "auto",
    precision: str = "float32",
    max_tier: str | None = None,
    license: str | None = None,  # noqa: A002 -- the word of the option
    out: str | Path | None = None,
    overlays: bool = True,
    keep_encodings: bool = False,
    fresh: bool = False,
    retry: bool = False,
    shard: str | tuple[int, int] | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    callbacks: Callbacks = _SILENT,
    clock: StageTimer | None = None,
) -> list[Prediction] | RunResult:
    """Find the named classes in images; ``SegmentOptions`` says what each option means.

    ``images`` are a path, a folder, a glob, a text list or a tar, an address of object storage (s3://bucket/photos), an image
    in memory (PIL, numpy, torch, ``Image``), or a list of these.  ``classes`` may be left out with a
    method that finds things without names.  Without ``out`` all predictions are returned, one an image, in order; an image that
    fails has its ``error``, and an only one raises it.  With ``out`` results are written there as the run goes, the same call
    resumes it, and what was found is in the result.

    Raises InputError for what does not fit together, and for names that are not known, with the nearest known one; MissingError
    for weights that are neither on this machine nor on a hub; ImageError for an only image that cannot be read.

    >>> import annofree
    >>> (found,) = annofree.segment("examples/scenes/oranges.jpg", "orange", models="tiny", device="cpu")
    >>> found.id, set(found.detections.labels.tolist())
    ('oranges.jpg', {'orange'})
    """
    method, models = locate_detector(method, models)
    vocabulary = _find_vocabulary(classes, method)
    check_range("batch_size", batch_size, 1)
    check_range("limit", limit, 1)
    check_range("min_score", min_score, 0, 1)
    plan = Plan(
        parse_tasks(task),
        method,
        variant,
        models,
        objectness,
        device,
        parse_stuff(stuff, vocabulary),
        parse_negatives(negatives, vocabulary),
        precision,
        parse_overlaps(overlaps),
        policy,
        detector=None if detector is None else Path(detector),
    )
    plan.check()
    part = parse_shard(shard)
    cluster = parse_engine(engine, address, workers)
    for name, value, least in (("limit", limit, 1), ("batch_size", batch_size, 1), ("min_score", min_score, 0)):
        check_range(name, value, least, sys.maxsize)
    _check_output(out, plan, fresh=fresh, retry=retry, shard=shard, keep_encodings=keep_encodings, engine=cluster)
    _check_license(plan, max_tier, license)
    from annofree.io.files.remote import refuse_url
    from annofree.runs.inputs import open_inputs

    if out is not None:
        refuse_url(out)
        _refuse_own_input(images, Path(out))
    inputs = open_inputs(images, exclude=None if out is None else Path(out), limit=limit)
    for remark in inputs.remarks:
        callbacks.on_note(remark)
    if out is None:
        return _predict(inputs, vocabulary, plan, min_score, batch_size, callbacks)
    options: dict[str, Any] = {"overlays": overlays, "keep_encodings": keep_encodings, "fresh": fresh, "retry": retry}
    options |= {"callbacks": callbacks, "clock": clock, "cluster": cluster}
    return run_plan(inputs, vocabulary, plan, Path(out), part, min_score, batch_size, **options)


def run_plan(
    inputs: Inputs,
    vocabulary: Vocabulary,
    plan: Plan,
    out: Path,
    part: tuple[int, int],
    min_score: float,
    batch_size: int | None,
    *,
    overlays: bool,
    keep_encodings: bool,
    fresh: bool,
    retry: bool,
    callbacks: Callbacks,
    clock: StageTimer | None,
    cluster: Cluster | None = None,
) -> RunResult:
    """Do a plan on images, as a run in a folder that resumes, here or by the workers of a cluster.

    Raises InputError for a folder with another run, and for a cluster where images are in memory.
    """
    from annofree.runs.config import RunConfig, size_chunks
    from annofree.runs.run import Run

    there = choose_device(plan.device, cluster)
    batch = plan.count_at_once(batch_size, there)
    request = RunConfig(
        out,
        inputs.ids,
        inputs.root,
        vocabulary,
        plan.resume_key() | inputs.resume_key(),
        plan.wanted,
        plan.stuff,
        part,
        size_chunks(batch),
        min_score,
        overlays,
        keep_encodings,
        there,
    )
    run = Run(request, callbacks)
    if not fresh and run.check() and not retry:
        return report_complete(run)
    if cluster is not None:
        return _execute_there(run, inputs, plan, clock, batch, fresh, retry, cluster)
    return _execute(run, inputs, plan, clock, batch, fresh, retry)


def _find_vocabulary(classes: Classes | None, method: str | None) -> Vocabulary:
    """The names asked for; ``object`` for a method that needs none."""
    if classes is not None:
        return Vocabulary.of(classes)
    if is_class_agnostic(method):
        return Vocabulary.of("object")
    free = ", ".join(info.name for info in list_methods() if info.class_agnostic)
    raise InputError(
        f'expected the names of the classes, such as "dog, cat", got none; of all methods {free} need none, '
        "nor does a detector that was trained without names"
    )


def parse_overlaps(overlaps: str | Overlaps | None) -> Overlaps | None:
    """Read which of two overlapping instances stays, such as 'within=0.5, prefer=whole'; raises InputError for others."""
    if not isinstance(overlaps, str):
        return overlaps
    from annofree.detections.nms import Overlaps

    return Overlaps.of(overlaps) if overlaps else None


def parse_shard(shard: str | tuple[int, int] | None) -> tuple[int, int]:
    """Read which part of all images is meant, '1/4' as the first of four; raises InputError for others.

    >>> parse_shard("2/4"), parse_shard(None)
    ((2, 4), (1, 1))
    """
    if shard is None or isinstance(shard, tuple):
        return shard or (1, 1)
    i, slash, n = shard.partition("/")
    if not (slash and _COUNT.fullmatch(i) and _COUNT.fullmatch(n)):
        raise InputError(f"expected --shard as a part of all, such as 1/4, got {shard[:40]!r}")
    return int(i), int(n)


def parse_engine(engine: str, address: str | None, workers: int | None) -> Cluster | None:
    """Return the cluster that does the work, None for this process; raises InputError for what does not fit together.

    >>> parse_engine("ray", None, 2)
    Cluster(address=None, workers=2)
    """
    if engine not in ENGINES:
        raise build_unknown_error("engine", engine, ENGINES)
    check_range("workers", workers, 1)
    if engine == "ray":
        from annofree.runs.engines.ray_pool import Cluster

        return Cluster(address, workers)
    given = [name for name, value in (("--address", address), ("--workers", workers)) if value is not None]
    if given:
        raise InputError(f"expected {' and '.join(given)} with --engine ray only, got {engine}; leave it out, or take ray")
    return None


def choose_device(device: str, cluster: Cluster | None) -> str:
    """Return the device that does the work: as named where other machines do it, else one that torch knows here."""
    from annofree.methods.components import resolve_device

    elsewhere = cluster is not None and cluster.address is not None and device != "auto"
    return device if elsewhere else resolve_device(device)


def _check_output(out: str | Path | None, plan: Plan, **asked: Any) -> None:
    """Refuse what only a run in a folder can do, and encodings that would depend on the names."""
    given = [name for name, value in asked.items() if value]
    if out is None and given:
        raise InputError(f"expected an output folder for {' and '.join(given)}, got none; pass out=")
    if plan.stuff and "panoptic" not in plan.wanted:
        raise InputError(f"expected --stuff with --task panoptic only, got it with {','.join(plan.wanted)}; leave it out")
    if asked["keep_encodings"] and "clip_diy" in plan.resolve_methods().values() and plan.objectness == "instances":
        raise InputError("--keep-encodings keeps what depends on no name, and --objectness instances does; choose another")


def _refuse_own_input(images: Any, out: Path) -> None:
    """Refuse to write results among the images that they are of."""
    given = [images] if isinstance(images, str | os.PathLike) else images if isinstance(images, list | tuple) else []
    if any(isinstance(one, str | os.PathLike) and Path(one).resolve() == out.resolve() for one in given):
        raise InputError(f"expected another folder for results than {out}, which has the images; choose another --out")


def _check_license(plan: Plan, max_tier: str | None, license: str | None) -> None:  # noqa: A002
    """Check the licenses and tiers of all models before anything is downloaded or loaded."""
    from annofree.hub.license_policy import check

    if max_tier is not None or license is not None:
        check(plan.list_cards(), max_tier, license)


def _predict(
    inputs: Inputs, vocabulary: Vocabulary, plan: Plan, min_score: float, batch_size: int | None, callbacks: Callbacks
) -> list[Prediction]:
    """Predict in memory, an image after another."""
    from annofree.io.images import silence_pillow
    from annofree.runs.predict import predict

    tasks, batch = plan.load_tasks(vocabulary), plan.count_at_once(batch_size)
    _announce_texts(tasks, vocabulary, callbacks)
    for remark in tasks.remarks(vocabulary):
        callbacks.on_note(remark)
    with silence_pillow():
        found = list(predict(tasks, inputs, vocabulary, min_score=min_score, batch_size=batch, callbacks=callbacks))
    failed = [one for one in found if one.error is not None]
    if failed:
        warnings.warn(f"{len(failed)} of {len(found)} images failed; the first: {failed[0].error}", stacklevel=3)
    return found


def _execute(
    run: Run, inputs: Inputs, plan: Plan, clock: StageTimer | None, batch_size: int, fresh: bool, retry: bool
) -> RunResult:
    """Load what the run needs, and do what is left of it."""
    from annofree.runs.batch_encoder import BatchEncoder
    from annofree.runs.clock import StageTimer

    tasks = plan.load_tasks(run.request.vocabulary)
    _announce_texts(tasks, run.request.vocabulary, run.callbacks)
    remarks = tasks.remarks(run.request.vocabulary)

    def note_smaller_batches(size: int) -> None:
        run.callbacks.on_note(f"memory ran out; from now on at most {size} images are encoded at once")

    feed = BatchEncoder(
        tasks, batch_size, count_reading_threads(), clock or StageTimer.started(None), note_smaller_batches, inputs.read
    )
    return execute(run, plan, tasks, feed, {"batch_size": batch_size}, remarks, fresh=fresh, retry=retry)


def _execute_there(
    run: Run, inputs: Inputs, plan: Plan, clock: StageTimer | None, batch_size: int, fresh: bool, retry: bool, cluster: Cluster
) -> RunResult:
    """Let the workers of a cluster do what is left of a run; the models are loaded there alone."""
    from annofree.runs.clock import StageTimer
    from annofree.runs.engines.ray_engine import RayEngine

    if inputs.opened:
        raise InputError("expected images as files for --engine ray, got some in memory; save them first, or take local")
    request = run.request
    there = replace(plan, device=request.device)
    make = partial(there.load_tasks, request.vocabulary)
    with RayEngine(cluster, request, make, batch_size, clock or StageTimer.started(None), run.callbacks) as engine:
        settings = {"batch_size": batch_size, "engine": "ray", "workers": engine.pool.plan.workers}
        return execute(run, plan, engine.info, engine, settings, engine.info.remarks, fresh=fresh, retry=retry)


def _announce_texts(tasks: Tasks, vocabulary: Vocabulary, callbacks: Callbacks) -> None:
    """Say that a first run takes longer: on a CPU, a text takes some ten milliseconds."""
    count = tasks.count_new_texts(vocabulary)
    if count > _MANY_TEXTS:
        callbacks.on_note(
            f"the first run with these models also encodes {count:,} texts, of names that compete with yours, and keeps them: "
            "some minutes on a CPU"
        )


def execute(
    run: Run,
    plan: Plan,
    tasks: Tasks | TasksInfo,
    feed: EncodingSource | Engine,
    settings: Mapping[str, Any],
    remarks: list[str],
    *,
    fresh: bool,
    retry: bool = False,
) -> RunResult:
    """Do what is left of a run; run.json says what it was asked for, ``settings`` among it."""
    from annofree.runs.corrections.journal import has_corrections

    request = run.request
    if has_corrections(request.out):
        run.callbacks.on_note(
            f"what people corrected in {request.out} stays as it is, and takes the place of the new answers to the same things"
        )
    asked = plan.to_run_json() | {"classes": [list(words) for words in request.vocabulary.synonyms], **settings}
    return RunResult(request.out, run.execute(tasks, feed, _about(request, asked, tasks, remarks), fresh=fresh, retry=retry))


def report_complete(run: Run) -> RunResult:
    """Note that a run is complete, and which images it could not do."""
    summary = run.read_summary()
    run.callbacks.on_note(f"the run in {run.request.out} is complete; --fresh makes it anew")
    for place, why in summary["failed"].items():
        run.callbacks.on_failure(place, why)
    return RunResult(run.request.out, summary, was_complete=True)


def _about(request: RunConfig, settings: dict[str, Any], tasks: Tasks | TasksInfo, remarks: list[str]) -> dict[str, Any]:
    """What run.json says of a run beside its results."""
    from annofree.runs.environment import list_versions

    more = {"min_score": request.min_score, "shard": "{}/{}".format(*request.part), "encodings": request.keep}
    return {
        "command": sys.argv,
        "settings": settings | more,
        "provenance": tasks.provenance,
        "remarks": remarks,
        "versions": list_versions(),
    }


def count_reading_threads() -> int:
    """How many threads read images ahead."""
    return min(8, max(2, os.cpu_count() or 2))
