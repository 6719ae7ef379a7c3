"""``annofree train selfmask``: pictures in, masks by a vote among spectral clusters, and a network that learned from them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from annofree.apps.cli.progress import progress
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.hub.cards import Card
    from annofree.methods.components import Models
    from annofree.training.selfmask.spectral_voting import SpectralVoter
    from annofree.training.selfmask.train import Pictures

__all__ = ["selfmask"]

_SHOWN = 12  # failures


def selfmask(
    out: Annotated[Path, typer.Option(help="The folder to write the model to; a run stopped there goes on.")],
    images: Annotated[Path | None, typer.Option(help="Train on the pictures of this folder.")] = None,
    world: Annotated[str | None, typer.Option(help="Train on drawn scenes: emoji.")] = None,
    count: Annotated[int, typer.Option(help="Scenes drawn, with --world.", min=1)] = 2000,
    sources: Annotated[
        str, typer.Option(help="Features that vote, joined by commas: dino, boundaries and dense (a CLIP's), colour.")
    ] = "dino,boundaries,colour",
    models: Annotated[str, typer.Option(help="The preset that has the sources' models.")] = "tiny",
    dino: Annotated[Path | None, typer.Option(help="The folder of a DINO, in the place of the preset's.")] = None,
    from_dino: Annotated[
        bool, typer.Option("--from-dino", help="Start from --dino's weights, too, and not from random ones.")
    ] = False,
    cells: Annotated[int, typer.Option(help="Cells that a source tells apart in a picture, at most.", min=16)] = 1024,
    side: Annotated[int, typer.Option(help="Px that pictures are squashed to for training.", min=32)] = 128,
    queries: Annotated[int, typer.Option(help="Queries of the decoder.", min=1)] = 20,
    steps: Annotated[int | None, typer.Option(help="Steps of training.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.", min=1)] = None,
    rate: Annotated[float | None, typer.Option(help="The learning rate; the original's, to fine-tune DINO, is 6e-6.")] = None,
    order: Annotated[
        Literal["paper", "released"], typer.Option(help="The ranking loss: as the paper means it, or as it was released.")
    ] = "paper",
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    exam: Annotated[int, typer.Option(help="Scenes of a split in the exam, with --world.", min=1)] = 60,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, where the system has none.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors and the figures.")] = False,
) -> None:
    """Train SelfMask on masks that no person made; 15 minutes on one core by default.

    The masks go to OUT/voted and are kept.  Exit code 0: all done; 1: some pictures cannot be read and are named.

    Example: annofree train selfmask --images photos --out selfmask
    """
    from annofree.retrieval.archive import read_masks
    from annofree.training.engine.loop import Watch
    from annofree.training.selfmask.spectral_voting import Voting, voter_named
    from annofree.training.selfmask.train import COURSE, RATE, Changes, emoji_pictures, fit_selfmask, new_network, vote_masks
    from annofree.training.tiny.evaluate_selfmask import examine_selfmask

    if (images is None) == (world is None) or world not in (None, "emoji"):
        raise InputError(
            f"expected either --images DIR or --world emoji, got {images or 'no images'} and {world or 'no world'}"
        )
    if from_dino and dino is None:
        raise InputError("expected --dino DIR with --from-dino, got none; name a DINO to start from")
    pictures = emoji_pictures(count, seed, side, font) if images is None else _pictures(images, out)
    parts = _models(models, device, dino)
    voter = voter_named([name.strip() for name in sources.split(",")], parts, Voting(most=cells, seed=seed))
    with progress("masks", quiet) as show:
        failed = vote_masks(pictures, voter, out / "voted", show)
    for why in list(failed.values())[:_SHOWN]:
        print(f"failed: {why}", file=sys.stderr)
    network = new_network(dino if from_dino else None, queries, side, seed)
    card = _card(voter, "emoji" if world else "photographs", len(pictures) - len(failed), side, order)
    course = replace(COURSE, steps=steps or COURSE.steps, batch=batch or COURSE.batch, seed=seed)
    with progress("steps", quiet) as show:
        watch = Watch(on_progress=show)
        masks = read_masks(out / "voted")
        figures = fit_selfmask(
            out, network, pictures, masks, course,
            rate=rate or RATE, changes=Changes(side=side), order=order, device=device, watch=watch, card=card,
        )  # fmt: skip
    if world:
        figures |= _examined(out, examine_selfmask(out, font, exam, voter=voter, side=side))
    print(f"{out}/card.json: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    raise typer.Exit(1 if failed else 0)


def _pictures(images: Path, out: Path) -> Pictures:
    """The pictures of a folder by their paths in it."""
    from functools import partial

    from annofree.io.images import find_images, read_image

    return {p.relative_to(images).as_posix(): partial(read_image, p) for p in find_images([images], exclude=out)}


def _models(preset: str, device: str, dino: Path | None) -> Models:
    from annofree.features.dino import Dino
    from annofree.methods.components import Models

    models = Models(preset, device)
    return models if dino is None else models.having(dino=Dino(dino, device))


def _card(voter: SpectralVoter, world: str, count: int, side: int, order: str) -> Card:
    from annofree.hub.cards import Card

    drawn = world == "emoji"
    what = f"{count} {'rendered scenes of the emoji world' if drawn else 'pictures'}, without labels"
    voted = f"masks by a vote of {', '.join(voter.sources)}; ranking loss: {order}"
    return Card(
        name="tiny-selfmask" if drawn else "own-selfmask",
        kind="saliency",
        family="SelfMask",
        tier=voter.tier,
        licence="Apache-2.0" if drawn else "unknown",
        code_licence="Apache-2.0",
        trained_on=f"{what}; {voted}",
        world=world,
        files={},
        use={"side": side},
    )


def _examined(out: Path, figures: dict[str, float]) -> dict[str, float]:
    """Write an exam's figures into the card, too."""
    from annofree.hub.cards import Card

    card = Card.read(out)
    replace(card, figures={**card.figures, **figures}).write(out)
    return figures
