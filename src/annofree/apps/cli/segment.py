"""``annofree segment``: pictures and names in, boxes, masks and label maps out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.plan import Plan, stuff_names, wanted_tasks
from annofree.apps.cli.progress import progress
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.running.tasks import Answer
    from annofree.structures import Image, Vocabulary

__all__ = ["segment"]


def segment(
    inputs: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of pictures.", metavar="INPUT...", show_default=False)
    ],
    classes: Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A text file with one such name a line.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="The method, or two joined by +, for the tasks each can do; else zip finds things, clip_diy names pixels."
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
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
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

    Exit code 0: all done; 1: some pictures failed and are named; 2: the call was wrong.
    """
    vocabulary = _vocabulary(classes, classes_file)
    plan = Plan(wanted_tasks(task), method, variant, models, objectness, device, stuff_names(stuff, vocabulary))
    if plan.stuff and "panoptic" not in plan.wanted:
        raise InputError(f"expected --stuff with --task panoptic only, got it with {task}; leave it out")
    _prepare(plan, max_tier, licence, quiet or as_json)
    summary = _segment(inputs, vocabulary, plan, out, batch_size, limit, quiet or as_json)
    if as_json:
        print(json.dumps(summary, indent=2))
    elif not quiet:
        print(_told(summary, plan.wanted, out))
    raise typer.Exit(1 if summary["failed"] else 0)


def _prepare(plan: Plan, max_tier: str | None, licence: str | None, quiet: bool) -> None:
    """Check the ledger before anything is fetched or loaded, and keep downloads quiet where asked to."""
    from annofree.features.hub import silence
    from annofree.features.ledger import check

    if max_tier is not None or licence is not None:
        check(plan.cards(), max_tier, licence)
    if quiet:
        silence()


def _vocabulary(classes: str | None, classes_file: Path | None) -> Vocabulary:
    from annofree.structures import Vocabulary

    if (classes is None) == (classes_file is None):
        raise InputError(
            'expected either --classes "dog, cat" or --classes-file FILE, got ' + ("neither" if classes is None else "both")
        )
    if classes is not None:
        return Vocabulary.of(classes if classes.strip() else [])
    assert classes_file is not None  # noqa: S101
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"expected a text file of class names at {classes_file}, but it cannot be read: {problem}") from None
    return Vocabulary.of([line for line in lines if line.strip() and not line.lstrip().startswith("#")])


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


def _segment(
    inputs: list[Path],
    vocabulary: Vocabulary,
    plan: Plan,
    out: Path,
    batch_size: int,
    limit: int | None,
    quiet: bool,
) -> dict[str, Any]:
    """Run the tasks over the pictures; whatever happens, what was done is written."""
    from annofree.datasets.folder import common_folder, find_images
    from annofree.formats.run_folder import RunFolder
    from annofree.running.local import run

    paths = find_images(inputs, exclude=out)[:limit]
    tasks = plan.tasks(vocabulary)
    folder = RunFolder.create(out, vocabulary.names, root=common_folder(inputs), tasks=plan.wanted, stuff=plan.stuff)
    remarks = tasks.remarks(vocabulary)
    for remark in remarks if not quiet else []:
        print(f"note: {remark}", file=sys.stderr)
    failed: dict[str, str] = {}

    def fail(path: Path, problem: Exception) -> None:
        why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        failed[str(path)] = why if str(path) in why else f"{path}: {why}"
        print(f"failed: {failed[str(path)]}", file=sys.stderr)

    def keep(path: Path, image: Image, answer: Answer) -> None:
        joined = answer.panoptic
        segments = None if joined is None else (joined.segments, joined.to_coco())
        folder.add_answers(path, image, detections=answer.detections, labels=answer.labels, segments=segments)

    settings = {
        "classes": [list(s) for s in vocabulary.synonyms],
        "batch_size": batch_size,
        "models": plan.models,
        "variant": plan.variant,
        "tasks": list(plan.wanted),
        "methods": plan.named(),
        "stuff": list(plan.stuff),
    }
    summary: dict[str, Any] = {
        "settings": settings,
        "provenance": tasks.provenance,
        "remarks": remarks,
        "versions": _versions(),
    }
    timings: dict[str, float] = {}
    try:
        with progress("pictures", quiet) as show:
            timings = run(
                tasks,
                paths,
                vocabulary,
                batch_size=batch_size,
                ask=tasks.answer,
                on_result=keep,
                on_failure=fail,
                on_progress=show,
            ).as_dict()
    finally:
        summary |= {"timings": timings or {"images": folder.images}, "failed": failed, "instances": folder.instances}
        if "semantic" in plan.wanted:
            summary["shares"] = folder.shares()
        folder.finish(summary)
    return summary


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("annofree", "torch", "torchvision", "open_clip_torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}
