"""Training of a detector on labels that a person or, more often, another method made.

    labeled images -> scenes (sizes, flips, crops, copy-paste) -> network -> its losses

One round of it on what a method found by itself is Zip's self-training; on a share of a person's labels, from a detector that
was trained so, its label-efficient tuning.  Losses are means over what each process draws from its own images, as in
detectron2: several processes learn what one does where that is everywhere as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from annofree.datasets.labeled import Labeled
from annofree.detectors.backbones import check_norm
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError, build_unknown_error
from annofree.training.augment.detection_scenes import DetectionScenes
from annofree.training.detector.export import draw_samples, write_detector
from annofree.training.detector.init import list_class_layers, start_network
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.engine.curves import plot_at_end
from annofree.training.engine.distributed import join_processes
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train

__all__ = [
    *("Batch", "SceneDraw", "build_optimizer", "choose_weighing", "collate", "compute_losses", "fit_detector"),
    *("read_labels",),
]

_MEMORY = 1 << 30  # bytes of decoded images, over all workers
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Batch(NamedTuple):
    """B scenes: ``pixels``, (3, H, W) uint8 each, and ``targets``, what there is to find in each."""

    pixels: list[Tensor]
    targets: list[DetectionTargets]


class SceneDraw:
    """Makes the number-th scene of a run, by ``seed``; ``ids`` is what each name of the labels is learned as, -1 for none.

    ``weighing`` are the power of a label's score that weighs its losses, and the mean of that; None weighs all alike.
    """

    def __init__(self, scenes: DetectionScenes, seed: int, ids: Tensor, weighing: tuple[float, float] | None = None) -> None:
        self.scenes, self.seed, self.ids, self.weighing = scenes, seed, ids, weighing

    def __call__(self, number: int) -> tuple[Tensor, DetectionTargets]:
        """Pixels (3, H, W) uint8 and the target."""
        pixels, target, scores = self.scenes.make_scene(np.random.default_rng((self.seed, number)))
        labels = self.ids[target.labels]
        kept = labels >= 0
        weights = None if self.weighing is None else scores[kept] ** self.weighing[0] / self.weighing[1]
        return pixels, DetectionTargets(target.boxes[kept], labels[kept], target.masks[kept], weights)


def collate(scenes: list[tuple[Tensor, DetectionTargets]]) -> Batch:
    """Put scenes, of any sizes, into a batch."""
    return Batch([pixels for pixels, _ in scenes], [target for _, target in scenes])


def compute_losses(network: nn.Module, batch: Batch, device: str = "cpu") -> dict[str, Tensor]:
    """Name the losses of a network on a batch."""
    pixels = [p.to(device, non_blocking=True).float() / 255 for p in batch.pixels]
    losses: dict[str, Tensor] = network(pixels, [target.to(device) for target in batch.targets])
    return losses


def build_optimizer(network: DetectorNetwork, recipe: DetectorRecipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, with a group for each learning rate and decay that there is.

    Groups are called ``weights``, ``resnet`` and ``heads`` (the last layers), those of norms with `` norms``.
    """
    norms = {id(p) for m in network.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    heads = _predictors(network) if recipe.head_rate != 1 else set()
    groups: dict[str, dict[str, object]] = {}
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        part, rate = _part(name, heads, recipe)
        kind, decay = (f"{part} norms", recipe.norm_decay) if id(weight) in norms else (part, recipe.weight_decay)
        group = groups.setdefault(kind, {"params": [], "lr": recipe.lr * rate, "weight_decay": decay, "name": kind})
        group["params"].append(weight)  # type: ignore[attr-defined]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(list(groups.values()))
    return torch.optim.SGD(list(groups.values()), momentum=recipe.momentum)


def _predictors(network: DetectorNetwork) -> set[str]:
    """The weights that say the last word on names, masks and boxes."""
    return list_class_layers(network.config) | {name for name, _ in network.named_parameters() if ".move." in name}


def _part(name: str, heads: set[str], recipe: DetectorRecipe) -> tuple[str, float]:
    """Which part of the network a weight belongs to, and what its learning rate is multiplied by."""
    if name in heads:
        return "heads", recipe.head_rate
    if recipe.backbone_rate != 1 and name.startswith("backbone.body."):
        return "resnet", recipe.backbone_rate
    return "weights", 1.0


def read_labels(recipe: DetectorRecipe) -> tuple[Labeled, tuple[str, ...], Tensor]:
    """Read the labels of a recipe, the names to learn, and which of those each of the labels' names is, -1 for none.

    Raises InputError for names that the labels do not have, and labels without an instance of any.
    """
    labeled = Labeled.read(
        recipe.labels, recipe.images, agnostic=recipe.agnostic, fraction=recipe.fraction, seed=recipe.split_seed
    )
    names = recipe.names or labeled.names
    for name in names:
        if name not in labeled.names:
            raise build_unknown_error("name among the labels", name, labeled.names)
    if not labeled.counts.any():
        raise InputError(f"expected labelled things in {recipe.labels}, got {len(labeled)} images without any")
    ids = torch.tensor([names.index(name) if name in names else -1 for name in labeled.names])
    return labeled, names, ids


def choose_weighing(recipe: DetectorRecipe, labeled: Labeled, kind: str) -> tuple[float, float] | None:
    """The power of a label's score that weighs its losses, and the mean of that over all labels; None where all weigh alike.

    Raises InputError for a network of another ``kind`` than a cascade, which has no place for weights.
    """
    if not recipe.score_weights:
        return None
    if kind != "cascade":
        raise InputError(
            f"expected score_weights of 0 for a {kind}, got {recipe.score_weights:g}; a cascade alone weighs labels"
        )
    return recipe.score_weights, max(float((labeled.scores.astype(np.float64) ** recipe.score_weights).mean()), 1e-6)


def fit_detector(
    recipe: DetectorRecipe,
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train by a recipe and write the detector to its ``out``, with a card; returns the last figures.

    Under ``torchrun`` each process takes its share of every batch, on a GPU of its own with ``device`` cuda.  Scenes follow
    from the seed and their number, so a run that was stopped goes on to the same losses.  Curves are drawn also of a run that
    was stopped.

    Raises InputError for labels or weights that do not serve, MissingError for weights that are not to be had, and what
    ``train`` does.
    """
    labeled, names, ids = read_labels(recipe)
    with join_processes(device) as ranks:
        scenes = DetectionScenes(labeled, recipe.build_scene_settings(), memory=_MEMORY // max(1, recipe.workers))
        network, said, origin = start_network(recipe, names)
        check_norm(network.config.norm, ranks.device)
        network.to(ranks.device).to(memory_format=torch.channels_last)  # a sixth faster on a CPU
        watch = TrainCallbacks.of(recipe, on_progress, lambda step, model: draw_samples(model, labeled, names, recipe, step))
        course = TrainConfig(
            recipe.steps, recipe.batch, recipe.schedule, recipe.seed, recipe.bf16, recipe.max_norm or None, recipe.ema or None
        )
        weighing = choose_weighing(recipe, labeled, network.config.kind)
        about = {**recipe.resume_key(), "data": labeled.compute_fingerprint(), "initial": origin.get("sha256")}
        about |= {} if weighing is None else {"mean weight": weighing[1]}
        if ranks.first:
            say(f"{len(names)} names, {len(labeled)} images with {int(labeled.counts.sum())} things; {said}")
        with plot_at_end(recipe.out, ranks.first):
            trained = train(
                network, build_optimizer(network, recipe), partial(compute_losses, device=ranks.device),
                SceneDraw(scenes, recipe.seed, ids, weighing), course, recipe.out,
                collate=collate, watch=watch, ranks=ranks, about=about,
            )  # fmt: skip
        if ranks.first:
            write_detector(trained.averaged or network, recipe, labeled, origin, trained.figures)
    return trained.figures
