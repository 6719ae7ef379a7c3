"""The exam of SelfMask on scenes that nobody has seen; the truth is read here only."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annofree.datasets.emoji.world import Scene, Split, World
from annofree.features.dino import Dino
from annofree.features.saliency import FoundBackground, TokenCutMap
from annofree.features.selfmask import SelfMask
from annofree.protocols import Objectness
from annofree.structures import Image
from annofree.training.tiny.evaluate_saliency import measure_overlap, write_untrained

__all__ = ["evaluate_selfmask"]

Masks = list[npt.NDArray[np.bool_]]

_SEED = 9_100_000
_SPLITS: tuple[Split, ...] = ("single", "mixed")


def evaluate_selfmask(
    folder: Path,
    font: Path | None = None,
    count: int = 60,
    *,
    voter: Objectness | None = None,
    side: int = 128,
    seed: int = _SEED,
) -> dict[str, float]:
    """Examine a SelfMask on ``count`` unseen scenes of ``side`` px of each of the splits single and mixed.

    Mean IoU per image with the union of all objects: of its masks; of the best of its queries, which only the truth can tell;
    of the masks that a ``voter`` makes, such as that from which it learned; of TokenCut and of FOUND's seed on random weights
    in the encoder's configuration; and of ``everything``, which calls each pixel an object.  Raises MissingError without the
    emoji font.
    """
    model, world = SelfMask(folder), World(font, held_out=0.3)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        untrained = Dino(write_untrained(folder, Path(scratch)), side=side)
        rivals: dict[str, Objectness] = {
            **({"voted": voter} if voter else {}),
            "tokencut, random weights": TokenCutMap(untrained),
            "found-bkg, random weights": FoundBackground(untrained),
        }
        for split in _SPLITS:
            scenes = list(world.draw_scenes(count, seed, split, side))
            for name, masks in {**_found(model, scenes), **_rivals(rivals, scenes)}.items():
                figures[f"{split} IoU, {name}"] = measure_overlap(masks, [s.layout > 0 for s in scenes]).per_image
    return figures


def _found(model: SelfMask, scenes: Sequence[Scene]) -> dict[str, Masks]:
    chosen, best = [], []
    for scene in scenes:
        (salient,) = model.predict_masks([Image(scene.image)], every=True)
        assert salient.all_soft is not None  # noqa: S101
        every = (salient.all_soft > 0.5).cpu().numpy()
        truth = scene.layout > 0
        both, either = (f(every, truth).sum((1, 2)) for f in (np.logical_and, np.logical_or))
        chosen.append(salient.mask.cpu().numpy())
        best.append(every[(both / either).argmax()])
    return {"selfmask": chosen, "selfmask, best query": best}


def _rivals(rivals: Mapping[str, Objectness], scenes: Sequence[Scene]) -> dict[str, Masks]:
    masks = {
        name: [rule.predict_maps([Image(s.image)])[0].cpu().numpy() > 0.5 for s in scenes] for name, rule in rivals.items()
    }
    return {**masks, "everything": [np.ones(s.layout.shape, bool) for s in scenes]}
