"""Images in, masks by a vote among spectral clusters, and a saliency network that learned from them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.trained_model import TrainedModel

if TYPE_CHECKING:
    from annofree.hub.cards import Card
    from annofree.methods.components import Models
    from annofree.training.selfmask.spectral_voting import SpectralVoter
    from annofree.training.selfmask.train import Images

__all__ = ["train_selfmask"]


def train_selfmask(
    out: str | Path,
    *,
    images: str | Path | None = None,
    world: str | None = None,
    count: int = 2000,
    sources: str | Sequence[str] = ("dino", "boundaries", "colour"),
    models: str = "tiny",
    dino: str | Path | None = None,
    from_dino: bool = False,
    cells: int = 1024,
    side: int = 128,
    queries: int = 20,
    steps: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    order: str = "paper",
    seed: int = 0,
    exam: int = 60,
    font: str | Path | None = None,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
) -> TrainedModel:
    """Train SelfMask on masks that no person made, of a folder of ``images`` or of the emoji ``world``.

    ``sources`` of ``models`` vote a mask of each image, of at most ``cells`` cells; masks go to ``voted`` in the folder and are
    kept.  The network starts at random or, with ``from_dino``, from the weights of the DINO in the folder ``dino``, which also
    takes the place of the preset's; it sees images at ``side`` px and has so many ``queries``.  ``steps``, ``batch`` and the
    learning ``rate`` are by default those for a tiny network; ``order`` is the ranking loss: as in the paper, its order as
    released, or all as released (``official``).
    Of the world, ``count`` scenes are drawn, and the model is evaluated on ``exam`` others of each split.  The same call
    resumes after a kill.

    Raises InputError unless there are images or the world, for unknown sources, and where the folder holds a training with
    other settings; MissingError without weights, or the emoji font.

    >>> train_selfmask("selfmask")
    Traceback (most recent call last):
    annofree.errors.InputError: expected either --images DIR or --world emoji, got no images and no world
    """
    if (images is None) == (world is None) or world not in (None, "emoji"):
        raise InputError(
            f"expected either --images DIR or --world emoji, got {images or 'no images'} and {world or 'no world'}"
        )
    if from_dino and dino is None:
        raise InputError("expected --dino DIR with --from-dino, got none; name a DINO to start from")
    out, place, font = Path(out), None if dino is None else Path(dino), None if font is None else Path(font)
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.retrieval.archive import read_masks
    from annofree.training.engine.loop import TrainCallbacks
    from annofree.training.selfmask import train as room
    from annofree.training.selfmask.spectral_voting import Voting, select_voter

    device = choose_training_device(device)
    pictures = room.draw_emoji_images(count, seed, side, font) if images is None else _images(Path(images), out)
    named = sources.split(",") if isinstance(sources, str) else sources
    voter = select_voter([name.strip() for name in named], _models(models, device, place), Voting(most=cells, seed=seed))
    failed = room.vote_masks(pictures, voter, out / "voted", callbacks.on_progress)
    for name, why in failed.items():
        callbacks.on_failure(name, why)
    network = room.build_network(place if from_dino else None, queries, side, seed)
    card = _card(voter, "emoji" if world else "photographs", len(pictures) - len(failed), side, order)
    course = replace(room.COURSE, steps=steps or room.COURSE.steps, batch=batch or room.COURSE.batch, seed=seed)
    callbacks.on_stage("steps", "")
    figures = room.fit_selfmask(
        out, network, pictures, read_masks(out / "voted"), course,
        rate=rate or room.RATE, changes=room.Changes(side=side), order=order, device=device,  # type: ignore[arg-type]  # checked there
        watch=TrainCallbacks(on_progress=callbacks.on_progress), card=card,
    )  # fmt: skip
    if world:
        figures |= _evaluated(out, font, exam, voter, side)
    return TrainedModel(out, figures, failed)


def _images(images: Path, out: Path) -> Images:
    """The images of a folder by their paths in it."""
    from annofree.io.images import find_images, read_image

    return {p.relative_to(images).as_posix(): partial(read_image, p) for p in find_images([images], exclude=out)}


def _models(preset: str, device: str, dino: Path | None) -> Models:
    from annofree.features.dino import Dino
    from annofree.methods.components import Models

    models = Models(preset, device)
    return models if dino is None else models.with_parts(dino=Dino(dino, device))


def _card(voter: SpectralVoter, world: str, count: int, side: int, order: str) -> Card:
    from annofree.hub.cards import Card

    drawn = world == "emoji"
    what = f"{count} {'rendered scenes of the emoji world' if drawn else 'images'}, without labels"
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


def _evaluated(out: Path, font: Path | None, count: int, voter: SpectralVoter, side: int) -> dict[str, float]:
    """Evaluate the model on scenes that it has not seen, and write the figures into its card, too."""
    from annofree.hub.cards import Card
    from annofree.training.tiny.evaluate_selfmask import evaluate_selfmask

    figures = evaluate_selfmask(out, font, count, voter=voter, side=side)
    card = Card.read(out)
    replace(card, figures={**card.figures, **figures}).write(out)
    return figures
