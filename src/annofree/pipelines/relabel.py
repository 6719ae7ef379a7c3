"""A run asked for other names, with its methods, models and tasks: no encoder runs again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.pipelines.banks import BankSource, check_tiers, find_bank
from annofree.pipelines.plan import Plan, parse_negatives, parse_stuff
from annofree.pipelines.segment import RunResult, execute, parse_overlaps, report_complete
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.detections.nms import Overlaps
    from annofree.runs.clock import StageTimer
    from annofree.runs.run import Run
    from annofree.structures import Classes

__all__ = ["PRESENCE", "plan_again", "relabel"]

PRESENCE = ("fixed", "folder")
"""How a method tells whether a class is in an image at all: by its own threshold, or against all images of the folder."""

_SILENT = Callbacks()


def relabel(
    run: str | Path,
    classes: Classes,
    *,
    out: str | Path,
    stuff: str | Iterable[str] | None = None,
    negatives: str | Iterable[str] | None = None,
    overlaps: str | Overlaps | None = None,
    presence: str = "fixed",
    bank: bool | str | Path = False,
    min_score: float = 0.0,
    max_tier: str | None = None,
    overlays: bool = False,
    fresh: bool = False,
    callbacks: Callbacks = _SILENT,
    clock: StageTimer | None = None,
) -> RunResult:
    """Ask a run that kept its encodings for other names; the results are those of a new run, up to fp16.

    ``out`` is another folder; the same call resumes there.  ``presence`` is ``fixed``, or ``folder`` for many names of which
    each is in few images.  ``bank`` lets what is told surely elsewhere in the folder, in another such run, or in an archive
    with masks, name and weigh what looks like it.  ``max_tier`` refuses models of more supervision, those that made such an
    archive among them.  ``overlays`` reads the images again to draw on them.  All other options mean what they mean in
    ``segment``.  Raises InputError for a run without encodings or of other models, an archive without masks
    or names that are asked for, and as ``segment`` does.

    >>> import annofree, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> options = {"models": "tiny", "device": "cpu", "overlays": False, "keep_encodings": True}
    >>> _ = annofree.segment("examples/scenes/oranges.jpg", "orange", out=folder / "run", **options)
    >>> annofree.relabel(folder / "run", "elephant, banana", out=folder / "other").summary["instances"]
    0
    """
    if presence not in PRESENCE:
        raise build_unknown_error("way to tell presence", presence, PRESENCE)
    check_range("min_score", min_score, 0, 1)
    run, out, vocabulary = Path(run), Path(out), Vocabulary.of(classes)
    from annofree.runs.store.checks import explain_damage
    from annofree.runs.stored_encodings import read_settings

    settings = read_settings(run)
    if out.resolve() == run.resolve():
        raise InputError(f"expected another folder to write to than {run}, which has the encodings; choose another --out")
    names = parse_stuff(stuff, vocabulary), parse_negatives(negatives, vocabulary)
    others = parse_overlaps(overlaps)
    with explain_damage(run / "shards" / "settings.json", run):
        plan = plan_again(settings, *names, others)
        plan.check()
    learned_of = find_bank(run, bank)
    check_tiers(run, learned_of, max_tier)
    again = _run(run, settings, plan, vocabulary, out, presence, learned_of, min_score, overlays, callbacks)
    if not fresh and again.check():
        return report_complete(again)
    return _execute(run, again, plan, learned_of, clock, fresh)


def plan_again(settings: dict[str, Any], stuff: tuple[str, ...], negatives: tuple[str, ...], overlaps: Overlaps | None) -> Plan:
    """The methods, models and tasks of a run, for other names."""
    asked = settings["asked"]
    return Plan(
        tuple(asked["tasks"]),
        asked["method"],
        asked["variant"],
        asked["models"],
        asked["objectness"],
        "auto" if settings["device"] != "cpu" else "cpu",
        stuff,
        negatives,
        asked.get("precision", "float32"),
        overlaps,
        asked.get("policy", "all"),
        asked.get("settings", {}),
        Path(asked["detector"]) if asked.get("detector") else None,
        asked.get("floor"),
    )


def _run(
    run: Path,
    settings: dict[str, Any],
    plan: Plan,
    vocabulary: Vocabulary,
    out: Path,
    presence: str,
    bank: BankSource | None,
    min_score: float,
    overlays: bool,
    callbacks: Callbacks,
) -> Run:
    from annofree.runs.config import RunConfig
    from annofree.runs.run import Run
    from annofree.runs.store.chunks import Chunks
    from annofree.runs.stored_encodings import read_shard

    request = RunConfig(
        out,
        Chunks(run).read_ids(),
        Path(settings["asked"]["root"]),
        vocabulary,
        plan.resume_key() | {"relabelled": str(run.resolve()), "presence": presence} | (bank.key if bank else {}),
        plan.wanted,
        plan.stuff,
        read_shard(settings),
        settings["stretch"],
        min_score,
        overlays,
    )
    return Run(request, callbacks)


def _execute(folder: Path, run: Run, plan: Plan, bank: BankSource | None, clock: StageTimer | None, fresh: bool) -> RunResult:
    from annofree.methods.components import resolve_device
    from annofree.methods.policies import resolve_bank
    from annofree.runs.clock import StageTimer
    from annofree.runs.stored_encodings import StoredEncodings

    request, tasks = run.request, plan.load_tasks(run.request.vocabulary)
    remarks = tasks.remarks(request.vocabulary)
    feed = StoredEncodings(
        folder, tasks, request.overlays, resolve_device(plan.device), clock=clock or StageTimer.started(None)
    )
    for line in feed.find_changed_images(request.root).describe():
        run.callbacks.on_note(f"{line}; what is told of them is of what they were")
    presence = request.settings["presence"]
    if presence == "folder":
        tasks = feed.with_calibration(request.vocabulary)
    if bank is not None:
        methods = plan.resolve_methods()
        settings = resolve_bank(plan.models, methods.get("instance") or methods["semantic"])
        tasks = bank.collect(replace(feed, tasks=tasks), request.vocabulary, settings, run.callbacks)
    asked = {"relabelled": str(folder), "presence": presence} | (bank.key if bank else {})
    return execute(run, plan, tasks, feed, asked, remarks, fresh=fresh)
