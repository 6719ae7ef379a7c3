"""An archive of images in, one unsupervised mask an image out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.runs.clock import StageTimer, Timings

if TYPE_CHECKING:
    from annofree.protocols import Objectness

__all__ = ["REFINEMENTS", "SOURCES", "MaskSummary", "mask_archive"]

SOURCES = ("selfmask", "found", "found-bkg", "tokencut", "maskcut", "voted")
"""What says where the thing is."""

REFINEMENTS = ("none", "pamr")
"""How masks are drawn to the edges of their image."""

_RELEASED = "selfmask-nq20"


@dataclass(frozen=True)
class MaskSummary:
    """The masks of an archive: how many of its ``pictures`` have one, and how many of these an earlier call made.

    ``failed`` is why images have none, by id; ``about`` how the masks came about; ``sheets`` the seconds that sheets took.
    """

    folder: Path
    pictures: int
    masks: int
    known: int
    failed: Mapping[str, str]
    about: Mapping[str, Any]
    timings: Timings
    sheets: float | None


def mask_archive(
    archive: str | Path,
    *,
    by: str | None = None,
    models: str = "fast",
    weights: str | Path | None = None,
    refine: str = "none",
    side: int | None = None,
    batch_size: int = 4,
    sheet: int = 12,
    device: str = "auto",
    callbacks: Callbacks = Callbacks(),
    clock: StageTimer | None = None,
) -> MaskSummary:
    """Mask the most salient object of each image; write masks.jsonl and sheets; the same call resumes after a kill.

    ``archive`` is the folder that ``retrieve`` wrote.  ``by`` says where the object is: selfmask, found, found-bkg, tokencut,
    maskcut or voted, of the preset ``models``; None is found-bkg, which needs no more than the preset's DINO, or selfmask with
    ``weights``.  For selfmask, ``weights`` is a folder that was trained or a file of released weights, and ``side`` the short
    side in px.  ``refine`` is none, or pamr, which draws masks to edges.  ``batch_size`` images are looked at together;
    ``sheet`` overlays are on the sheet of each name.  Raises InputError for a folder that is no archive and for masks that came
    about otherwise, MissingError without weights.

    >>> mask_archive("examples")
    Traceback (most recent call last):
    annofree.errors.InputError: expected an archive's archive.json in examples, ...
    """
    by = by or ("found-bkg" if weights is None else "selfmask")
    _check(by, refine, side, batch_size, sheet)
    from annofree.retrieval.archive import Archive, MaskWriter

    clock, folder = clock or StageTimer.started(), Path(archive)

    def count(done: int, total: int) -> None:
        if clock.part == "load":
            clock.switch("other")
        callbacks.on_progress(done, total)

    images = Archive.read(folder)
    source = _source(by, models, None if weights is None else Path(weights), side, device)
    from annofree.retrieval.mask_sheets import write_mask_sheets
    from annofree.runs.archive_masks import mask_archive as write_masks

    about = {"by": by, "refine": refine, "model": source.provenance}
    with MaskWriter(folder, about) as writer:
        known = len(writer.done & set(images.ids))
        failed = write_masks(
            images,
            writer,
            source,
            refine=refine,  # type: ignore[arg-type]  # one of two words
            batch=batch_size,
            on_failure=callbacks.on_failure,
            on_progress=count,
        )
    before = clock.elapsed
    if sheet:
        callbacks.on_stage("sheets", "")
        write_mask_sheets(images, folder, sheet, callbacks.on_progress)
    sheets = clock.elapsed - before if sheet else None
    made = len(images) - len(failed)
    timings = clock.summarize(made - known, len(failed))
    return MaskSummary(folder, len(images), made, known, failed, about, timings, sheets)


def _check(by: str, refine: str, side: int | None, batch_size: int, sheet: int) -> None:
    """Refuse words and numbers that do not serve."""
    if by not in SOURCES:
        raise build_unknown_error("source of masks", by, SOURCES)
    if refine not in REFINEMENTS:
        raise build_unknown_error("refinement", refine, REFINEMENTS)
    for name, value, least in (("side", side, 1), ("batch_size", batch_size, 1), ("sheet", sheet, 0)):
        check_range(name, value, least)


def _source(by: str, models: str, weights: Path | None, side: int | None, device: str) -> Objectness:
    """Load what says where things are."""
    if by == "selfmask":
        return _selfmask(weights, side, device)
    if weights is not None or side is not None:
        raise InputError(f"expected --weights and --side with --by selfmask only, got them with {by}; leave them out")
    from annofree.methods.components import resolve_device
    from annofree.training.selfmask.spectral_voting import load_source

    return load_source(by, models, resolve_device(device))


def _selfmask(weights: Path | None, side: int | None, device: str) -> Objectness:
    """Load a SelfMask that was trained, or the released one."""
    from annofree.hub.download import find
    from annofree.hub.store import find_card

    card = find_card(_RELEASED)
    local = find(card) if weights is None else None
    if weights is None and local is None:
        raise MissingError(
            f"{card.name} is not on this machine, and on no hub: {card.explain_adding()}, or name with --weights a folder of "
            "`annofree train selfmask`, or choose --by found-bkg or tokencut, which need a DINO only"
        )
    from annofree.features.selfmask import SelfMask
    from annofree.methods.components import resolve_device

    if weights is not None:
        return SelfMask(weights, resolve_device(device), side=side)
    assert local is not None  # noqa: S101 -- else it was refused above
    return SelfMask(local.folder, resolve_device(device), card=local.card, side=side)
