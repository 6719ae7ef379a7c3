"""A trained NamedMask as a model folder: weights, card, and how all of it came about; and what it says while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import PIL.Image

from annofree.detectors.checkpoint import WEIGHTS
from annofree.detectors.deeplab.network import DeepLab
from annofree.detectors.deeplab.weights import CONFIG, save_namedmask
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.read_json import read_own_json
from annofree.methods.namedmask import LabelNetwork, NamedMask
from annofree.ops.palette import make_palette
from annofree.retrieval.archive import Archive, PseudoMask
from annofree.structures import Image, IntArray
from annofree.training.augment.copy_paste import CopyPaste
from annofree.training.engine.provenance import find_tiers, make_portable, summarize_cost
from annofree.training.namedmask.recipe import NamedMaskRecipe

__all__ = ["ORIGIN", "SAMPLES", "draw_samples", "write_namedmask"]

ORIGIN, SAMPLES = "training.json", "samples"
_SAMPLES = 4  # scenes


def write_namedmask(
    network: DeepLab,
    recipe: NamedMaskRecipe,
    archive: Archive,
    masks: Mapping[str, PseudoMask],
    initial: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    """Write a network to the recipe's ``out`` in half precision, with a card and ``training.json``, its origins.

    The tier is the highest of all that took part: retrieval, the model of the masks, and the initial weights.
    """
    out = recipe.out
    origin = _origin(recipe, archive, masks, initial)
    save_namedmask(network, out)
    write_json(out / ORIGIN, origin, indent=2)
    by = origin["masks"].get("by", "an unknown source")
    steps = int(figures.get("step", recipe.steps))
    Card(
        name=recipe.name,
        kind="segmenter",
        family="NamedMask DeepLabv3+",
        tier=max(find_tiers([origin, "S1"])),  # names came from a CLIP, which is S1 at least
        licence=recipe.licence,
        code_licence="Apache-2.0",
        trained_on=f"scenes of {len(archive.ids)} images, retrieved for {len(archive.names)} names, masks by {by}",
        world=recipe.world,
        files={name: hash_file(out / name) for name in (CONFIG, WEIGHTS, ORIGIN)},
        use={"side": recipe.side} if recipe.side else {},
        figures=summarize_cost(steps, recipe.batch, figures) | {"training cross-entropy": figures["cross-entropy"]},
        parameters=sum(p.numel() for p in network.parameters()),
        preprocessing={"mean": list(network.config.mean), "std": list(network.config.std)},
    ).write(out)


def _origin(
    recipe: NamedMaskRecipe, archive: Archive, masks: Mapping[str, PseudoMask], initial: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the network was made of, without the places that it lay in."""
    path = recipe.archive / "masks-about.json"
    about = read_own_json(path, "how the masks came about", "give the same `annofree mask` again") if path.is_file() else {}
    return {
        "initial": make_portable(dict(initial)),
        "archive": make_portable({"names": archive.names, "pictures": len(archive.ids), "about": archive.about}),
        "masks": {"count": len(masks), **make_portable(about)},
        "recipe": make_portable({k: v for k, v in asdict(recipe).items() if k not in ("archive", "out", "initial")}),
    }


def draw_samples(network: DeepLab, recipe: NamedMaskRecipe, scenes: CopyPaste, step: int) -> None:
    """Draw a few scenes, the same ones each time: the image, the truth, and what the network says at this step."""
    path = recipe.out / SAMPLES / f"{step:06d}.png"
    device = str(next(network.parameters()).device)
    method = NamedMask(LabelNetwork(network, {"name": recipe.name}, device))
    rows = []
    for i in range(_SAMPLES):
        scene = scenes.make_scene(np.random.default_rng((recipe.seed, i, 1)))  # never one of the run's, whose keys are shorter
        found = method.semantic(Image(scene.image, f"scene {i}"), list(scenes.names))
        true = np.where(scene.semantic == scenes.settings.ignored, 0, scene.semantic)
        rows.append(np.concatenate([scene.image, _paint(true), _paint(found.labels.astype(np.int64))], 1))
    make_folder(path.parent)
    sheet = PIL.Image.fromarray(np.concatenate(rows))
    write_atomic(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _paint(labels: IntArray) -> Any:
    """The colors (H, W, 3) uint8 of labels (H, W), in which 0 is the background, black, and k + 1 the k-th name."""
    colors = np.array([(0, 0, 0), *make_palette(int(labels.max()))], np.uint8)
    return colors[labels]
