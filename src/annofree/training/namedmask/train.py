"""NamedMask's training (Shin et al., CVPRW 2023): from an archive of retrieved images and their pseudo-masks to label maps.

    archive, masks -> scenes of one or two images -> DeepLabv3+ -> cross-entropy with the names that retrieved them

The paper's experts, a network a name that relabel its archive before, are left out: each takes a training of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.detectors.backbones import load_backbone
from annofree.detectors.deeplab.network import DeepLab, DeepLabConfig
from annofree.training.archives.lesson import compute_fingerprint, read_archive
from annofree.training.augment.copy_paste import CopyPaste, PastedScene
from annofree.training.detector.init import read_initial
from annofree.training.engine.curves import plot_at_end
from annofree.training.engine.distributed import DistributedContext, join_processes
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train
from annofree.training.engine.lr_schedules import Poly
from annofree.training.namedmask.export import draw_samples, write_namedmask
from annofree.training.namedmask.recipe import NamedMaskRecipe

__all__ = ["Batch", "LabelCriterion", "build_network", "build_optimizer", "collate", "draw_scene", "fit_namedmask"]

_MEMORY = 1 << 30  # bytes of decoded images, over all workers


class Batch(NamedTuple):
    """B scenes: ``pixels`` (B, 3, S, S) uint8 and ``labels`` (B, S, S) int16."""

    pixels: Tensor
    labels: Tensor


class LabelCriterion:
    """Gives the loss of a network on a batch, where labels are compared at every ``stride``-th px, down and across."""

    def __init__(self, config: DeepLabConfig, ignored: int, ranks: DistributedContext, stride: int = 1) -> None:
        self.ignored, self.ranks = ignored, ranks
        self._seen = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        self.mean, self.std = (torch.tensor(v, device=ranks.device).view(3, 1, 1) for v in (config.mean, config.std))

    def __call__(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, the mean over all pixels of a step that are not padding, whoever has them."""
        device = self.ranks.device
        pixels = (batch.pixels.to(device, non_blocking=True).float() / 255 - self.mean) / self.std
        labels = batch.labels[self._seen].to(device, non_blocking=True).long()
        logits = network(pixels)
        counted = self.ranks.average((labels != self.ignored).sum().float())
        with torch.autocast(logits.device.type, enabled=False):
            drawn = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            total = F.cross_entropy(drawn, labels, ignore_index=self.ignored, reduction="sum")
        return {"cross-entropy": total / counted.clamp(min=1)}


def collate(scenes: list[PastedScene]) -> Batch:
    """Put scenes of one size into a batch."""
    pixels = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).contiguous()
    return Batch(pixels, torch.from_numpy(np.stack([s.semantic for s in scenes]).astype(np.int16)))


def draw_scene(scenes: CopyPaste, seed: int, number: int) -> PastedScene:
    """Make the number-th scene of a run."""
    return scenes.make_scene(np.random.default_rng((seed, number)))


def build_optimizer(network: DeepLab, recipe: NamedMaskRecipe) -> torch.optim.Adam:
    """Adam with the weight decay on everything, and two groups: the ResNet, and the rest."""
    own = set(network.backbone.parameters())
    rest = [p for p in network.parameters() if p not in own]
    groups = [
        {"params": rest, "lr": recipe.lr, "name": "decoder"},
        {"params": list(network.backbone.parameters()), "lr": recipe.backbone_lr, "name": "backbone"},
    ]
    return torch.optim.Adam(groups, weight_decay=recipe.weight_decay)


def build_network(recipe: NamedMaskRecipe, names: tuple[str, ...]) -> tuple[DeepLab, str, Mapping[str, Any]]:
    """A network for names, random by the recipe's seed but for its ResNet, what to say of that, and where that is from.

    Raises InputError for weights that do not fit, MissingError for those that are not here and not to be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = DeepLab(DeepLabConfig.of({**recipe.network, "names": names}))
    if not recipe.initial:
        return network, "all weights are random", {}
    state, origin = read_initial(recipe.initial)
    return network, f"{origin['name']}: {load_backbone(network, state)}", origin


def fit_namedmask(
    recipe: NamedMaskRecipe,
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train by a recipe and write the model to its ``out``, with a card; returns the last figures.

    Under ``torchrun`` each process takes its share of every batch.  Scenes follow from the seed and their number, so a run that
    was stopped goes on to the same losses.

    Raises InputError for an archive without masks, a name without images, weights that do not fit, and what ``train`` does.
    """
    archive, masks = read_archive(recipe)
    network, said, origin = build_network(recipe, archive.names)
    with join_processes(device) as ranks:
        scenes = CopyPaste(archive, masks, recipe.build_scene_settings(), memory=_MEMORY // max(1, recipe.workers))
        network.to(ranks.device)
        lesson = LabelCriterion(network.config, scenes.settings.ignored, ranks, recipe.stride)
        watch = TrainCallbacks.of(recipe, on_progress, lambda step, model: draw_samples(network, recipe, scenes, step))
        schedule = Poly(recipe.power, recipe.floor)
        course = TrainConfig(recipe.steps, recipe.batch, schedule, recipe.seed, recipe.bf16, recipe.max_norm or None)
        about = {
            **recipe.resume_key(),
            "data": compute_fingerprint(archive, masks),
            "initial": origin.get("sha256", {}),
        }
        if ranks.first:
            used = len(archive.ids) - scenes.left_out
            say(f"{len(archive.names)} names, {used} images; {scenes.left_out} without a mask take no part; {said}")
        with plot_at_end(recipe.out, ranks.first):
            trained = train(
                network, build_optimizer(network, recipe), lesson, partial(draw_scene, scenes, recipe.seed), course, recipe.out,
                collate=collate, watch=watch, ranks=ranks, about=about,
            )  # fmt: skip
        if ranks.first:
            write_namedmask(network, recipe, archive, masks, origin, trained.figures)
    return trained.figures
