"""``annofree mask``: an archive of pictures in, one unsupervised mask a picture out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import brief, spent
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.protocols import Objectness
    from annofree.render.contact_sheet import Thumbnail
    from annofree.retrieval.archive import Archive, PseudoMask

__all__ = ["mask"]

_RELEASED = "selfmask-nq20"


def mask(
    archive: Annotated[Path, typer.Argument(help="The folder that `annofree retrieve` wrote.", show_default=False)],
    by: Annotated[
        Literal["selfmask", "found", "found-bkg", "tokencut", "voted"], typer.Option(help="What says where the thing is.")
    ] = "selfmask",
    models: Annotated[
        str, typer.Option(help="The preset that has DINO and the saliency head, as `annofree models list` has them.")
    ] = "fast",
    weights: Annotated[
        Path | None, typer.Option(help="For selfmask: a folder of `annofree train selfmask`, or a file of released weights.")
    ] = None,
    refine: Annotated[Literal["none", "pamr"], typer.Option(help="Draw masks to the edges of their picture.")] = "none",
    side: Annotated[
        int | None, typer.Option(help="For selfmask: bring the short side to this many px (ZUTIS: 512); else as its card says.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures looked at together.", min=1)] = 4,
    sheet: Annotated[int, typer.Option(help="Overlays on the sheet of each name; 0 for no sheets.", min=0)] = 12,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Mask the most salient thing of each picture; write masks.jsonl and sheets; the same command goes on after a kill.

    The quality of a mask is SelfMask's objectness; for the others, the mean of the soft map inside of the mask less that
    outside.  Exit code 0: all done; 1: some pictures failed and are named; 2: the call was wrong.

    Example: annofree mask archive
    """
    clock, silent = command_clock(), quiet or as_json
    with progress("masks", silent, clock=clock, batch=batch_size) as show:
        from annofree.retrieval.archive import Archive, MaskWriter
        from annofree.runs.mask_archive import mask_archive

        def fail(name: str, why: str) -> None:
            show.say(f"failed: {why}")

        pictures = Archive.read(archive)
        source = _source(by, models, weights, side, device)
        about = {"by": by, "refine": refine, "model": source.provenance}
        with MaskWriter(archive, about) as writer:
            known = len(writer.done & set(pictures.ids))
            failed = mask_archive(pictures, writer, source, refine=refine, batch=batch_size, on_failure=fail, on_progress=show)
    before = clock.elapsed
    if sheet:
        with progress("sheets", silent) as show:
            _write_sheets(pictures, archive, sheet, show)
    sheets = {"sheets": clock.elapsed - before} if sheet else {}
    made = len(pictures) - len(failed)
    timings = clock.timings(made - known, len(failed)).as_dict()
    if as_json:
        counts = {"pictures": len(pictures), "masks": made, "known": known, "failed": failed}
        print(json.dumps({**counts, **about, "timings": brief(timings)}, indent=2))
    elif not quiet:
        print(f"{made} masks of {len(pictures)} images ({known} were there); {spent(timings, **sheets)}")
        print(f"written: {archive}/masks.jsonl")
    raise typer.Exit(1 if failed else 0)


def _source(by: str, models: str, weights: Path | None, side: int | None, device: str) -> Objectness:
    """Load what says where things are."""
    from annofree.methods.components import device_named
    from annofree.training.selfmask.spectral_voting import source_named

    if by == "selfmask":
        return _selfmask(weights, side, device_named(device))
    if weights is not None or side is not None:
        raise InputError(f"expected --weights and --side with --by selfmask only, got them with {by}; leave them out")
    return source_named(by, models, device)


def _selfmask(weights: Path | None, side: int | None, device: str) -> Objectness:
    from annofree.errors import MissingError
    from annofree.features.selfmask import SelfMask
    from annofree.hub.download import find
    from annofree.hub.store import card_named

    if weights is not None:
        return SelfMask(weights, device, side=side)
    card = card_named(_RELEASED)
    local = find(card)
    if local is None:
        raise MissingError(
            f"{card.name} is not on this machine, and on no hub: take selfmask_nq20.pt from {card.link} and name the file with "
            "--weights, or a folder of `annofree train selfmask`, or choose --by found-bkg or tokencut, which need a DINO only"
        )
    return SelfMask(local.folder, device, card=local.card, side=side)


def _write_sheets(pictures: Archive, folder: Path, count: int, show: Callable[[int, int], None]) -> None:
    """Draw the first ``count`` masks of each name that has any over their pictures, sheets/masks-NAME.jpg."""
    from annofree.hub.store import slug
    from annofree.io.atomic import make_folder
    from annofree.render.contact_sheet import draw_contact_sheet
    from annofree.retrieval.archive import read_masks

    masks = read_masks(folder)
    make_folder(folder / "sheets")
    for k, name in enumerate(pictures.names):
        show(k, len(pictures.members))
        chosen = [masks[m.id] for m in pictures.members[name] if m.id in masks][:count]
        sheet = draw_contact_sheet(f"{name}: masks and their quality", [_thumbnail(pictures, m, k) for m in chosen])
        sheet.save(folder / "sheets" / f"masks-{slug(name)}.jpg", quality=90)
    show(len(pictures.members), len(pictures.members))


def _thumbnail(pictures: Archive, found: PseudoMask, class_id: int) -> Thumbnail:
    """A picture with its mask, in the color of its class."""
    import numpy as np

    from annofree.errors import ImageError
    from annofree.ops.rle import decode_rle
    from annofree.render.contact_sheet import Thumbnail
    from annofree.render.overlay import draw_overlay
    from annofree.structures import Detections, Image

    try:
        image = pictures.open(found.id)
    except ImageError:
        return Thumbnail(None, found.id)  # it was there when it was masked
    decoded = decode_rle(found.rle)
    if decoded.shape != image.size:
        return Thumbnail(image, f"{found.quality:.2f}, of another size")
    drawn = draw_overlay(image, Detections.from_masks(decoded[None], [class_id], [found.quality], pictures.names))
    return Thumbnail(Image(np.asarray(drawn.convert("RGB"))), f"{found.quality:.2f}")
