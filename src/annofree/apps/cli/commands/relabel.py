"""``annofree relabel``: another class list for a run that kept its encodings; nothing is encoded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.commands.segment import about_run, already_done, vocabulary_of
from annofree.apps.cli.help import one_of
from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import tell
from annofree.pipelines.plan import OVERLAPS, Plan, negative_names, stuff_names

if TYPE_CHECKING:
    from annofree.runs.clock import Clock
    from annofree.runs.run import Run

__all__ = ["relabel"]


def relabel(
    run: Annotated[Path, typer.Argument(help="The folder of a run with --keep-encodings.", metavar="RUN", show_default=False)],
    classes: Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A text file with one such name a line.")] = None,
    stuff: Annotated[str | None, typer.Option(help="For panoptic: which of the names are no things, such as sky.")] = None,
    negatives: Annotated[
        str | None, typer.Option(help="Names that compete with the classes but are never told, such as wall, floor.")
    ] = None,
    overlaps: Annotated[str | None, typer.Option(help=OVERLAPS)] = None,
    presence: Annotated[
        str,
        typer.Option(
            help="How to tell whether a class is in a picture at all: fixed, or folder, against all pictures, for many "
            "names of which each is in few.",
            **one_of("fixed", "folder"),
        ),
    ] = "fixed",
    min_score: Annotated[float, typer.Option(help="Leave out instances that score less.", min=0, max=1)] = 0.0,
    out: Annotated[Path, typer.Option(help="Another folder to write to; the same command goes on with what is there.")] = Path(
        "relabelled"
    ),
    fresh: Annotated[bool, typer.Option(help="Throw away the run in the folder, and start anew.")] = False,
    overlays: Annotated[bool, typer.Option(help="Draw what was found over the pictures, which are read for it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Ask a run for other names, with its methods, models and tasks; the results are those of a new run, up to fp16.

    Pictures that the run could not do stay in quarantine. Exit code 0: all done; 1: some pictures failed and are named; 2: the
    call was wrong.

    Example: annofree relabel out --classes "bird, boat" --out other
    """
    clock, silent = command_clock(), quiet or as_json
    with progress("images", silent, clock=clock) as show:
        from annofree.detections.nms import Overlaps
        from annofree.errors import InputError, unknown_name
        from annofree.runs.config import Request
        from annofree.runs.relabel import asked_of, part_of
        from annofree.runs.run import Run
        from annofree.runs.store.chunks import Shards

        if presence not in ("fixed", "folder"):
            raise unknown_name("way to tell presence", presence, ("fixed", "folder"))
        vocabulary = vocabulary_of(classes, classes_file)
        settings = asked_of(run)
        if out.resolve() == run.resolve():
            raise InputError(f"expected another folder to write to than {run}, which has the encodings; choose another --out")
        asked = settings["asked"]
        more = stuff_names(stuff, vocabulary), negative_names(negatives, vocabulary)
        device = "auto" if settings["device"] != "cpu" else "cpu"
        plan = Plan(
            tuple(asked["tasks"]),
            asked["method"],
            asked["variant"],
            asked["models"],
            asked["objectness"],
            device,
            *more,
            precision=asked.get("precision", "float32"),
            overlaps=Overlaps.of(overlaps) if overlaps else None,
            policy=asked.get("policy", "all"),
        )
        request = Request(
            out,
            Shards(run).ids(),
            Path(asked["root"]),
            vocabulary,
            plan.asked() | {"relabelled": str(run.resolve()), "presence": presence},
            plan.wanted,
            plan.stuff,
            part_of(settings),
            settings["stretch"],
            min_score,
            overlays,
        )
        again = Run(request, show.callbacks)
        before = not fresh and again.check()
        summary = already_done(again) if before else _relabel(run, again, plan, clock, fresh)
    tell(summary, plan.wanted, out, as_json, quiet, before)


def _relabel(folder: Path, run: Run, plan: Plan, clock: Clock, fresh: bool) -> dict[str, Any]:
    from annofree.methods.components import device_named
    from annofree.runs.relabel import Kept

    request = run.request
    tasks = plan.tasks(request.vocabulary)
    remarks = tasks.remarks(request.vocabulary)
    feed = Kept(folder, tasks, request.overlays, device_named(plan.device), clock=clock)
    if request.settings["presence"] == "folder":
        tasks = feed.calibrated(request.vocabulary)
    settings = plan.told() | {
        "classes": [list(s) for s in request.vocabulary.synonyms],
        "relabelled": str(folder),
        "presence": request.settings["presence"],
    }
    return run.go(tasks, feed, about_run(request, settings, tasks, remarks), fresh=fresh)
