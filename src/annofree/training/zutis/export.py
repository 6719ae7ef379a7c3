"""A trained ZUTIS as a model folder: weights, card, and how all of it came about; and what it says while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import PIL.Image

from annofree.features.zutis_network import ZutisNetwork
from annofree.features.zutis_weights import CONFIG, WEIGHTS, save_zutis
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.read_json import read_own_json
from annofree.methods.zutis import VARIANTS, Zutis
from annofree.protocols import VisionLanguage
from annofree.render.overlay import draw_overlay
from annofree.retrieval.archive import Archive, PseudoMask
from annofree.structures import Detections, Image
from annofree.training.augment.copy_paste import CopyPaste
from annofree.training.engine.provenance import find_tiers, make_portable, summarize_cost
from annofree.training.zutis.recipe import ZutisRecipe

__all__ = ["ORIGIN", "SAMPLES", "draw_samples", "write_zutis"]

ORIGIN, SAMPLES = "training.json", "samples"
_SAMPLES, _SHOWN = 4, 8  # scenes, and instances of each that are drawn
_KEPT = ("cross-entropy", "dice", "bce", "empty")


def write_zutis(
    network: ZutisNetwork,
    recipe: ZutisRecipe,
    archive: Archive,
    masks: Mapping[str, PseudoMask],
    clip: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    """Write a network to the recipe's ``out`` in half precision, with a card and ``training.json``, its origins.

    The tier is the highest of all that took part: the CLIP, retrieval and the model of the masks.
    """
    out = recipe.out
    origin = _origin(recipe, archive, masks, clip)
    save_zutis(network, out)
    write_json(out / ORIGIN, origin, indent=2)
    by = origin["masks"].get("by", "an unknown source")
    card = Card(
        name=recipe.name,
        kind="segmenter",
        family="ZUTIS ViT",
        tier=max(find_tiers([origin, "S1"])),  # a CLIP is S1 at least
        licence=recipe.licence,
        code_licence="Apache-2.0",
        trained_on=f"copy-paste scenes of {len(archive.ids)} images, retrieved for {len(archive.names)} names, masks by {by}",
        world=recipe.world,
        files={name: hash_file(out / name) for name in (CONFIG, WEIGHTS, ORIGIN)},
        use={"side": recipe.side} if recipe.side else {},
        figures=_figures(recipe, figures),
        parameters=sum(p.numel() for p in network.parameters()),
        preprocessing={"mean": list(network.config.mean), "std": list(network.config.std)},
    )
    card.write(out)


def _figures(recipe: ZutisRecipe, figures: Mapping[str, float]) -> dict[str, float]:
    steps = int(figures.get("step", recipe.steps))  # fewer than the recipe's where time ended it
    found = summarize_cost(steps, recipe.batch, figures)
    return found | {f"training {name}": figures[name] for name in _KEPT if name in figures}


def _origin(recipe: ZutisRecipe, archive: Archive, masks: Mapping[str, PseudoMask], clip: Mapping[str, Any]) -> dict[str, Any]:
    """All that the network was made of, without the places that it lay in."""
    path = recipe.archive / "masks-about.json"
    about = read_own_json(path, "how the masks came about", "give the same `annofree mask` again") if path.is_file() else {}
    return {
        "clip": make_portable(dict(clip)),
        "archive": make_portable({"names": archive.names, "pictures": len(archive.ids), "about": archive.about}),
        "masks": {"count": len(masks), **make_portable(about)},
        "recipe": make_portable({k: v for k, v in asdict(recipe).items() if k not in ("archive", "out", "clip")}),
    }


def draw_samples(network: ZutisNetwork, clip: VisionLanguage, recipe: ZutisRecipe, scenes: CopyPaste, step: int) -> None:
    """Draw a few scenes, the same ones each time: left the truth, right what the network says at this step."""
    path = recipe.out / SAMPLES / f"{step:06d}.png"
    settings = replace(VARIANTS["default"], background=(recipe.background,), templates=None, most=_SHOWN, side=0)
    method = Zutis(network, clip, settings)
    rows = []
    for i in range(_SAMPLES):
        scene = scenes.make_scene(np.random.default_rng((recipe.seed, i, 1)))  # never one of the run's, whose keys are shorter
        image = Image(scene.image, f"scene {i}")
        scores = [1.0] * len(scene.class_ids)
        true = Detections.from_masks(scene.instances, scene.class_ids, scores, scenes.names)
        found = method.instances(image, list(scenes.names))
        rows.append(np.concatenate([np.asarray(draw_overlay(image, those)) for those in (true, found)], 1))
    make_folder(path.parent)
    sheet = PIL.Image.fromarray(np.concatenate(rows))
    write_atomic(path, lambda temporary: sheet.save(temporary, format="PNG"))
