"""A trained detector as a model folder: weights, card, and how all of it came about; and what it says while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import PIL.Image
from torch import nn

from annofree.datasets.labeled import Labeled, find_labels_file, read_info
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.checkpoint import save_detector
from annofree.detectors.config import DetectorConfig
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.methods.detector import Detector, DetectorInfo, DetectorSettings
from annofree.render.overlay import draw_overlay
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.engine.provenance import find_tiers, make_portable, summarize_cost

__all__ = ["ORIGIN", "SAMPLES", "draw_samples", "write_detector"]

ORIGIN, SAMPLES = "training.json", "samples"
_FILES = ("detector.json", "model.safetensors", ORIGIN)
_SAMPLES, _SHOWN = 4, DetectorSettings(min_score=0.3, most=12)
_OF_A_PERSON = "S4"
_KINDS = {"cascade": "Cascade Mask R-CNN", "mask_rcnn": "Mask R-CNN", "mask2former": "Mask2Former"}


def write_detector(
    network: nn.Module, recipe: DetectorRecipe, labeled: Labeled, start: Mapping[str, Any], figures: Mapping[str, float]
) -> None:
    """Write a network to the recipe's ``out`` in half precision, with a card and ``training.json``, its origins.

    The tier is the highest of all that took part: what made the labels, and what the network started from.
    """
    assert isinstance(network, DetectorNetwork)  # noqa: S101  (an average of weights keeps the class of its module)
    out, config = recipe.out, network.config
    origin = _origin(recipe, labeled, start)
    save_detector(network, out)
    write_json(out / ORIGIN, origin, indent=2)
    Card(
        name=recipe.name,
        kind="segmenter",
        family=_family(config),
        tier=_tier(recipe, origin),
        licence=recipe.licence,
        code_licence="Apache-2.0",
        trained_on=f"{len(labeled)} images with {int(labeled.counts.sum())} things, labelled by {_who(origin['labels'])}",
        world=recipe.world,
        files={name: hash_file(out / name) for name in _FILES},
        figures=_figures(recipe, figures),
        parameters=sum(p.numel() for p in network.parameters()),
        preprocessing={"side": config.side, "longest": config.longest, "mean": list(config.mean), "std": list(config.std)},
    ).write(out)


def _family(config: DetectorConfig) -> str:
    return f"Detector {_KINDS[config.kind]} {config.backbone}"


def _figures(recipe: DetectorRecipe, figures: Mapping[str, float]) -> dict[str, float]:
    found = summarize_cost(recipe.steps, recipe.batch, figures)
    return found | ({"training loss": figures["loss"]} if "loss" in figures else {})


def _origin(recipe: DetectorRecipe, labeled: Labeled, start: Mapping[str, Any]) -> dict[str, Any]:
    """All that the network was made of, without the places that it lay in."""
    told = read_info(find_labels_file(recipe.labels))
    where = ("labels", "images", "out", "initial")
    data = {"names": labeled.names, "pictures": len(labeled), "things": int(labeled.counts.sum())}
    return {
        "labels": make_portable({**data, "fingerprint": labeled.compute_fingerprint(), "info": told}),
        "initial": make_portable(dict(start)),
        "recipe": make_portable({k: v for k, v in asdict(recipe).items() if k not in where}),
    }


def _tier(recipe: DetectorRecipe, origin: Mapping[str, Any]) -> str:
    """The most supervision of any part; what does not tell its own has the recipe's, and labels without any a person's."""
    labels = [*find_tiers(origin["labels"]), *([recipe.tier] if recipe.tier else [])] or [_OF_A_PERSON]
    return max([*labels, *find_tiers(origin["initial"])])


def _who(labels: Mapping[str, Any]) -> str:
    """Who made labels: the method that their info names, if it names one."""
    method = _named(labels["info"], "method")
    return f"the method {method}" if method else "a person, or whoever made the file"


def _named(value: Any, key: str) -> str | None:
    """The first text of a name that is anywhere in provenance."""
    if isinstance(value, Mapping):
        if isinstance(value.get(key), str):
            return str(value[key])
        value = list(value.values())
    if isinstance(value, list):
        return next(filter(None, (_named(part, key) for part in value)), None)
    return None


def draw_samples(network: nn.Module, labeled: Labeled, names: tuple[str, ...], recipe: DetectorRecipe, step: int) -> None:
    """Draw a few labeled images, the same ones each time: left the labels, right what the network says at this step."""
    assert isinstance(network, DetectorNetwork)  # noqa: S101
    method = Detector(network, DetectorInfo(names, {}, network.device), _SHOWN)
    shown = np.flatnonzero(labeled.counts)
    rows = []
    for index in shown[np.linspace(0, len(shown) - 1, min(_SAMPLES, len(shown))).round().astype(int)]:
        image, true = labeled.read_image(index), labeled.read_instances(index)
        found = method.instances(image, names)
        rows.append([draw_overlay(image, those) for those in (true, found)])
    path = recipe.out / SAMPLES / f"{step:06d}.png"
    make_folder(path.parent)
    sheet = _sheet(rows)
    write_atomic(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _sheet(rows: list[list[PIL.Image.Image]]) -> PIL.Image.Image:
    """Images in rows, each from the left and below the one before."""
    sheet = PIL.Image.new("RGB", (max(sum(p.width for p in row) for row in rows), sum(row[0].height for row in rows)), "white")
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width
        top += row[0].height
    return sheet
