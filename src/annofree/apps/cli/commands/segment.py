"""``annofree segment``: pictures and names in, boxes, masks and label maps out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.progress import progress
from annofree.errors import InputError
from annofree.pipelines.plan import OVERLAPS, Plan, negative_names, policy_named, precision_named, stuff_names, wanted_tasks

if TYPE_CHECKING:
    from annofree.runs.config import Ears, Request
    from annofree.runs.run import Run
    from annofree.runs.tasks import Tasks
    from annofree.structures import Vocabulary

__all__ = ["about_run", "already_done", "ears", "segment", "tell", "vocabulary_of"]


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders of them, quoted globs, .txt lists of paths, tars, file:// URLs.",
            metavar="INPUT...",
            show_default=False,
        ),
    ],
    classes: Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A text file with one such name a line.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="The method, or two joined by +, for the tasks each can do; else the preset's own for instances "
            "(consensus with tiny, zip with others), clip_diy for label maps."
        ),
    ] = None,
    variant: Annotated[str, typer.Option(help="How the method is set: default, paper, official, ...")] = "default",
    models: Annotated[
        str, typer.Option(help="A preset, or models joined by +, as `annofree models list` has them; tiny knows emoji only.")
    ] = "fast",
    objectness: Annotated[
        str, typer.Option(help="Where things are, for clip_diy: found, found-bkg, tokencut, instances or none.")
    ] = "found",
    task: Annotated[
        str, typer.Option(help="What to find: instance, semantic, panoptic, or several joined by commas.")
    ] = "instance",
    stuff: Annotated[str | None, typer.Option(help="For panoptic: which of the names are no things, such as sky.")] = None,
    negatives: Annotated[
        str | None, typer.Option(help="Names that compete with the classes but are never told, such as wall, floor.")
    ] = None,
    policy: Annotated[
        str,
        typer.Option(help="Which instances are told: answer, those that the models are sure of; all, the whole ranking."),
    ] = "answer",
    overlaps: Annotated[str | None, typer.Option(help=OVERLAPS)] = None,
    min_score: Annotated[float, typer.Option(help="Leave out instances that score less.", min=0, max=1)] = 0.0,
    out: Annotated[Path, typer.Option(help="The folder to write to; the same command goes on there.")] = Path("out"),
    fresh: Annotated[bool, typer.Option(help="Throw away the run in the folder, and start anew.")] = False,
    retry: Annotated[bool, typer.Option(help="Try pictures that failed once more.")] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do one of N parts: of every N stretches of 64 pictures or so, the I-th.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Draw what was found over the pictures.")] = True,
    keep_encodings: Annotated[bool, typer.Option(help="Keep what `annofree relabel` needs to ask for other names.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    precision: Annotated[
        str, typer.Option(help="What CLIP's image tower computes in: float32, bfloat16 or float16.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(help="Pictures encoded at once.", min=1)] = 4,
    limit: Annotated[int | None, typer.Option(help="Take only the first N pictures.", min=1)] = None,
    max_tier: Annotated[str | None, typer.Option(help="Refuse models of more supervision than S0, S1, S2 or S3.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", "--licence", help="Refuse models of other licences: permissive, or SPDX ids.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Find the named things in pictures; write run.json, annotations.json (COCO), labels/ or panoptic.json, and overlays.

    Stopped at any moment, the same command goes on. Exit code 0: all done; 1: some pictures failed and are named, in
    quarantine.json too; 2: the call was wrong.
    """
    vocabulary = vocabulary_of(classes, classes_file)  # before what is heavy, so that a call without names is refused at once
    from annofree.detections.overlaps import Overlaps

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
    _prepare(plan, max_tier, licence, quiet or as_json)
    from annofree.methods.components import device_named
    from annofree.runs.config import Request, stretch_of
    from annofree.runs.inputs import source_of

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
    summary = _segment(request, plan, batch_size, fresh, retry, quiet or as_json)
    tell(summary, plan.wanted, out, as_json, quiet)


def tell(summary: dict[str, Any], wanted: tuple[str, ...], out: Path, as_json: bool, quiet: bool) -> None:
    """Print what was done, and end with code 1 where pictures failed."""
    if as_json:
        print(json.dumps(summary, indent=2))
    elif not quiet:
        print(_told(summary, wanted, out))
    raise typer.Exit(1 if summary["failed"] else 0)


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


def _told(summary: dict[str, Any], wanted: tuple[str, ...], out: Path) -> str:
    """What was done, in a line or two."""
    done, took = summary["timings"]["images"], summary["timings"]["seconds_total"]
    places = {
        "instance": f"{summary['instances']} instances, {out}/annotations.json, {out}/overlays",
        "semantic": f"label maps, {out}/labels, {out}/overlays-semantic",
        "panoptic": f"panoptic maps, {out}/panoptic.json",
    }
    if wanted == ("instance",):
        return f"{summary['instances']} instances in {done} pictures, {took:.1f} s: {out}/annotations.json, {out}/overlays"
    lines = [f"{done} pictures, {took:.1f} s: " + "; ".join(places[task] for task in wanted)]
    if summary.get("shares"):
        lines.append("mean shares: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in summary["shares"].items()))
    return "\n".join(lines)


def _segment(request: Request, plan: Plan, batch_size: int, fresh: bool, retry: bool, quiet: bool) -> dict[str, Any]:
    """Go on with the run, unless all is done."""
    from annofree.runs.batch_encoder import Encoders
    from annofree.runs.run import Run

    with progress("pictures", quiet) as show:
        run = Run(request, ears(show, quiet))
        if not fresh and run.check() and not retry:
            return already_done(run, quiet)
        tasks = plan.tasks(request.vocabulary)
        remarks = tasks.remarks(request.vocabulary)

        def less(size: int) -> None:
            run.ears.note(f"memory ran out; from now on at most {size} pictures are encoded at once")

        feed = Encoders(tasks, batch_size, min(8, max(2, os.cpu_count() or 2)), on_less=less)
        settings = plan.told() | {"classes": [list(s) for s in request.vocabulary.synonyms], "batch_size": batch_size}
        about = about_run(request, settings, tasks, remarks)
        return run.go(tasks, feed, about, fresh=fresh, retry=retry)


def ears(show: Callable[[int, int], None], quiet: bool) -> Ears:
    """Tell failures, always, and notes and progress, unless quiet, on the error stream."""
    from annofree.runs.config import Ears

    def note(text: str) -> None:
        if not quiet:
            print(f"note: {text}", file=sys.stderr)

    return Ears(lambda _, why: print(f"failed: {why}", file=sys.stderr), show, note)


def already_done(run: Run, quiet: bool) -> dict[str, Any]:
    """Say that a run is complete, and which pictures it could not do; returns its run.json."""
    summary = run.summary()
    run.ears.note(f"the run in {run.request.out} is complete; --fresh makes it anew")
    for why in summary["failed"].values():
        print(f"failed: {why}", file=sys.stderr)
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
