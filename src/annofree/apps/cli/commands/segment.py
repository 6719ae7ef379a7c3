"""``annofree segment``: pictures and names in, boxes, masks and label maps out."""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.help import one_of
from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import tell
from annofree.errors import InputError
from annofree.pipelines.plan import OVERLAPS, Plan, negative_names, policy_named, precision_named, stuff_names, wanted_tasks

if TYPE_CHECKING:
    from annofree.runs.clock import Clock
    from annofree.runs.config import Request
    from annofree.runs.run import Run
    from annofree.runs.tasks import Tasks
    from annofree.structures import Vocabulary

__all__ = ["about_run", "already_done", "segment", "vocabulary_of"]

# the headings of the options
_ASKED = "What is asked for"
_FOUND = "How it is found"
_DONE = "How it is done"
_WRITTEN = "What is written and told"
_ALLOWED = "What is allowed"


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders of them, quoted globs, .txt lists of paths, tars, file:// URLs.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    classes: Annotated[
        str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".', rich_help_panel=_ASKED)
    ] = None,
    classes_file: Annotated[
        Path | None, typer.Option(help="A text file with one such name a line.", rich_help_panel=_ASKED)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="The method, or two joined by +, for the tasks each can do; else the preset's own: consensus with tiny, zip "
            "(instances) and clip_diy (label maps) with others.",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="How the method is set: default, paper, official, ...", rich_help_panel=_FOUND)
    ] = "default",
    models: Annotated[
        str,
        typer.Option(
            help="A preset, or models joined by +, as `annofree models list` has them; tiny knows emoji only.",
            rich_help_panel=_FOUND,
        ),
    ] = "fast",
    objectness: Annotated[
        str,
        typer.Option(
            help="Where things are, for clip_diy.",
            rich_help_panel=_FOUND,
            **one_of("found", "found-bkg", "tokencut", "instances", "none"),
        ),
    ] = "found",
    task: Annotated[
        str,
        typer.Option(help="What to find: instance, semantic, panoptic, or several joined by commas.", rich_help_panel=_ASKED),
    ] = "instance",
    stuff: Annotated[
        str | None, typer.Option(help="For panoptic: which of the names are no things, such as sky.", rich_help_panel=_ASKED)
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help="Names that compete with the classes but are never told, such as wall, floor.", rich_help_panel=_ASKED
        ),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="Which instances are told: answer, those that the models are sure of; all, the whole ranking.",
            rich_help_panel=_FOUND,
            **one_of("answer", "all"),
        ),
    ] = "answer",
    overlaps: Annotated[str | None, typer.Option(help=OVERLAPS, rich_help_panel=_FOUND)] = None,
    min_score: Annotated[
        float, typer.Option(help="Leave out instances that score less.", min=0, max=1, rich_help_panel=_FOUND)
    ] = 0.0,
    out: Annotated[
        Path, typer.Option(help="The folder to write to; the same command goes on there.", rich_help_panel=_WRITTEN)
    ] = Path("out"),
    fresh: Annotated[
        bool, typer.Option(help="Throw away the run in the folder, and start anew.", rich_help_panel=_DONE)
    ] = False,
    retry: Annotated[bool, typer.Option(help="Try pictures that failed once more.", rich_help_panel=_DONE)] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Do one of N parts: of every N stretches of 64 pictures or so, the I-th.", rich_help_panel=_DONE
        ),
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Draw what was found over the pictures.", rich_help_panel=_WRITTEN)] = True,
    keep_encodings: Annotated[
        bool, typer.Option(help="Keep what `annofree relabel` needs to ask for other names.", rich_help_panel=_WRITTEN)
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...", rich_help_panel=_FOUND)] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="What CLIP's image tower computes in.",
            rich_help_panel=_FOUND,
            **one_of("float32", "bfloat16", "float16"),
        ),
    ] = "float32",
    batch_size: Annotated[int, typer.Option(help="Pictures encoded at once.", min=1, rich_help_panel=_DONE)] = 4,
    limit: Annotated[int | None, typer.Option(help="Take only the first N pictures.", min=1, rich_help_panel=_DONE)] = None,
    max_tier: Annotated[
        str | None,
        typer.Option(
            help="Refuse models of more supervision.",
            rich_help_panel=_ALLOWED,
            **one_of("S0", "S1", "S2", "S3"),
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", "--licence", help="Refuse models of other licences: permissive, or SPDX ids.", rich_help_panel=_ALLOWED
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a summary as JSON instead of words.", rich_help_panel=_WRITTEN)
    ] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.", rich_help_panel=_WRITTEN)] = False,
) -> None:
    """Find the named things in pictures; write run.json, annotations.json (COCO), labels/ or panoptic.json, and overlays.

    Stopped at any moment, the same command goes on. Exit code 0: all done; 1: some pictures failed and are named, in
    quarantine.json too; 2: the call was wrong.

    Example: annofree segment photos --classes "dog, cat: kitten | tabby"
    """
    clock, silent = command_clock(), quiet or as_json
    with progress("images", silent, clock=clock, batch=batch_size) as show:
        vocabulary = vocabulary_of(classes, classes_file)  # before what is heavy: without names, the call is refused
        from annofree.detections.nms import Overlaps

        others = stuff_names(stuff, vocabulary), negative_names(negatives, vocabulary)
        settled = Overlaps.of(overlaps) if overlaps else None
        plan = Plan(
            wanted_tasks(task),
            method,
            variant,
            models,
            objectness,
            device,
            *others,
            precision=precision_named(precision),
            overlaps=settled,
            policy=policy_named(policy),
        )
        if plan.stuff and "panoptic" not in plan.wanted:
            raise InputError(f"expected --stuff with --task panoptic only, got it with {task}; leave it out")
        if keep_encodings and "clip_diy" in plan.named().values() and objectness == "instances":
            raise InputError("--keep-encodings keeps what depends on no name, and --objectness instances does; choose another")
        _prepare(plan, max_tier, licence, silent)
        from annofree.methods.components import device_named
        from annofree.runs.config import Request, stretch_of
        from annofree.runs.inputs import source_of
        from annofree.runs.run import Run

        source = source_of(inputs, exclude=out)
        request = Request(
            out,
            list(islice(source.ids(), limit)),
            source.root,
            vocabulary,
            plan.asked(),
            plan.wanted,
            plan.stuff,
            _part(shard),
            stretch_of(batch_size),
            min_score,
            overlays,
            keep_encodings,
            device_named(device),
        )
        run = Run(request, show.callbacks)
        before = not fresh and run.check() and not retry
        summary = already_done(run) if before else _segment(run, plan, clock, batch_size, fresh, retry)
    tell(summary, plan.wanted, out, as_json, quiet, before)


def _part(shard: str | None) -> tuple[int, int]:
    if shard is None:
        return 1, 1
    i, slash, n = shard.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal()):
        raise InputError(f"expected --shard as a part of all, such as 1/4, got {shard!r}")
    return int(i), int(n)


def _prepare(plan: Plan, max_tier: str | None, licence: str | None, quiet: bool) -> None:
    """Check the ledger before anything is fetched or loaded, and keep downloads quiet where asked to."""
    from annofree.hub.download import silence
    from annofree.hub.license_policy import check

    if max_tier is not None or licence is not None:
        check(plan.cards(), max_tier, licence)
    if quiet:
        silence()


def vocabulary_of(classes: str | None, classes_file: Path | None) -> Vocabulary:
    """Read the names from the one option or the other; raises InputError for neither, both, and names that do not serve."""
    if (classes is None) == (classes_file is None):
        raise InputError(
            'expected either --classes "dog, cat" or --classes-file FILE, got ' + ("neither" if classes is None else "both")
        )
    names: str | list[str]
    if classes is not None:
        names = classes if classes.strip() else []
    else:
        assert classes_file is not None  # noqa: S101
        try:
            lines = classes_file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as problem:
            raise InputError(
                f"expected a text file of class names at {classes_file}, but it cannot be read: {problem}"
            ) from None
        names = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    from annofree.structures import Vocabulary

    return Vocabulary.of(names)


def _segment(run: Run, plan: Plan, clock: Clock, batch_size: int, fresh: bool, retry: bool) -> dict[str, Any]:
    """Go on with the run."""
    from annofree.runs.batch_encoder import Encoders

    request = run.request
    tasks = plan.tasks(request.vocabulary)
    remarks = tasks.remarks(request.vocabulary)

    def less(size: int) -> None:
        run.callbacks.on_note(f"memory ran out; from now on at most {size} pictures are encoded at once")

    feed = Encoders(tasks, batch_size, min(8, max(2, os.cpu_count() or 2)), clock, less)
    settings = plan.told() | {"classes": [list(s) for s in request.vocabulary.synonyms], "batch_size": batch_size}
    return run.go(tasks, feed, about_run(request, settings, tasks, remarks), fresh=fresh, retry=retry)


def already_done(run: Run) -> dict[str, Any]:
    """Say that a run is complete, and which pictures it could not do; returns its run.json."""
    summary = run.summary()
    run.callbacks.on_note(f"the run in {run.request.out} is complete; --fresh makes it anew")
    for place, why in summary["failed"].items():
        run.callbacks.on_failure(place, why)
    return summary


def about_run(request: Request, settings: dict[str, Any], tasks: Tasks, remarks: list[str]) -> dict[str, Any]:
    """What run.json says of a run beside its results."""
    from annofree.runs.environment import versions

    more = {"min_score": request.min_score, "shard": "{}/{}".format(*request.part), "encodings": request.keep}
    return {
        "command": sys.argv,
        "settings": settings | more,
        "provenance": tasks.provenance,
        "remarks": remarks,
        "versions": versions(),
    }
