"""ZUTIS's training (Shin et al., CVPRW 2023): from an archive of retrieved images and their pseudo-masks to a segmenter.

    archive, masks -> copy-paste scenes -> network -> cross-entropy of cosines to the frozen text features  (encoder)
                                              '-> dice and cross-entropy of matched proposals at each layer (decoder)

Names come from retrieval and masks from a model that was never shown any: no person marked anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from annofree.features.clip import Clip
from annofree.features.zutis_network import ZutisNetwork
from annofree.hub.cards import Card
from annofree.hub.download import Local, fetch
from annofree.hub.presets import list_presets
from annofree.hub.store import find_card
from annofree.retrieval.archive import Archive
from annofree.structures import Vocabulary
from annofree.training.archives.lesson import compute_fingerprint, read_archive
from annofree.training.augment.copy_paste import CopyPaste, PastedScene
from annofree.training.engine.curves import plot_at_end
from annofree.training.engine.distributed import DistributedContext, join_processes
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train
from annofree.training.engine.lr_schedules import Poly
from annofree.training.losses.set_losses import compute_semantic_loss, compute_set_loss
from annofree.training.zutis.export import draw_samples, write_zutis
from annofree.training.zutis.recipe import ZutisRecipe
from annofree.training.zutis.scene_pool import ScenePool, TenthTeller, keep_pool

__all__ = [
    *("Batch", "ZutisCriterion", "build_network", "build_optimizer", "collate", "draw_scene", "encode_class_texts"),
    *("find_clip", "fit_zutis"),
]

_MEMORY = 1 << 30  # bytes of decoded images, over all workers


class Batch(NamedTuple):
    """B scenes: ``pixels`` (B, 3, S, S) uint8, ``labels`` (B, S, S) int16, and the ``instances`` (N, S, S) bool of each."""

    pixels: Tensor
    labels: Tensor
    instances: list[Tensor]


class ZutisCriterion:
    """Gives the losses of a network on a batch; ``words`` (K, D) are the text features of the background and the names.

    They are compared at every ``stride``-th px of a scene, down and across.
    """

    def __init__(
        self,
        network: ZutisNetwork,
        words: Tensor,
        ignored: int,
        mask_weight: float,
        ranks: DistributedContext,
        stride: int = 1,
        empty_weight: float = 0.0,
    ) -> None:
        self.words, self.ignored, self.ranks = words, ignored, ranks
        self.mask_weight, self.empty_weight = mask_weight, empty_weight
        self._seen = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        self.mean, self.std = (torch.tensor(v, device=ranks.device).view(3, 1, 1) for v in _statistics(network))

    def __call__(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and the two parts of the mask loss; means over all scenes of a step, whoever has them."""
        device = self.ranks.device
        pixels = (batch.pixels.to(device, non_blocking=True).float() / 255 - self.mean) / self.std
        labels = batch.labels[self._seen].to(device, non_blocking=True).long()
        found = network(pixels)
        counted = self.ranks.average((labels != self.ignored).sum().float())
        named = compute_semantic_loss(found.features, self.words, labels, ignored=self.ignored, counted=counted)
        drawn = compute_set_loss(found.masks, [i[self._seen].to(device, non_blocking=True) for i in batch.instances])
        losses = {"cross-entropy": named, "dice": self.mask_weight * drawn.dice, "bce": self.mask_weight * drawn.bce}
        return losses | ({"empty": self.empty_weight * drawn.empty} if self.empty_weight else {})


def _statistics(network: ZutisNetwork) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return network.config.mean, network.config.std


def collate(scenes: list[PastedScene]) -> Batch:
    """Put scenes of one size into a batch."""
    pixels = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.stack([s.semantic for s in scenes]).astype(np.int16))
    return Batch(pixels, labels, [torch.from_numpy(s.instances) for s in scenes])


def build_optimizer(network: ZutisNetwork, recipe: ZutisRecipe) -> torch.optim.AdamW:
    """AdamW with the weight decay on everything, and two groups: the encoder, its projection included, and the rest."""
    own = set(network.encoder.parameters())
    rest = [p for p in network.parameters() if p not in own]
    groups = [
        {"params": rest, "lr": recipe.lr, "name": "decoder"},
        {"params": list(network.encoder.parameters()), "lr": recipe.encoder_lr, "name": "encoder"},
    ]
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def fit_zutis(
    recipe: ZutisRecipe,
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train by a recipe and write the model to its ``out``, with a card; returns the last figures.

    Under ``torchrun`` each process takes its share of every batch, on a GPU of its own with ``device`` cuda.  Scenes follow
    from the seed and their number, so a run that was stopped goes on to the same losses.  Curves are drawn also of a run that
    was stopped.

    Raises InputError for an archive without masks, a name without images, a CLIP without a ViT, and what ``train`` does.
    """
    archive, masks = read_archive(recipe)
    local = find_clip(recipe.clip)
    with join_processes(device) as ranks:
        scenes = CopyPaste(archive, masks, recipe.build_scene_settings(), memory=_MEMORY // max(1, recipe.workers))
        network = build_network(local, archive.names, recipe).to(ranks.device)
        clip = Clip(local.folder, ranks.device, card=local.card).with_prompts(recipe.templates)
        words = recipe.logit_scale * encode_class_texts(clip, recipe, archive.names)
        lesson = ZutisCriterion(
            network, words, scenes.settings.ignored, recipe.mask_weight, ranks, recipe.stride, recipe.empty_weight
        )
        watch = TrainCallbacks.of(recipe, on_progress, lambda step, model: draw_samples(network, clip, recipe, scenes, step))
        schedule = Poly(recipe.power, recipe.floor)
        seconds = 60 * recipe.minutes or None
        course = TrainConfig(
            recipe.steps, recipe.batch, schedule, recipe.seed, recipe.bf16, recipe.max_norm or None, recipe.ema or None, seconds
        )
        about = {
            **recipe.resume_key(),
            "data": compute_fingerprint(archive, masks),
            "clip": local.card.to_provenance()["sha256"],
        }
        if ranks.first:
            say(_remark(archive, scenes))
        with plot_at_end(recipe.out, ranks.first):
            learn = partial(train, network, build_optimizer(network, recipe), watch=watch, ranks=ranks, about=about)
            if recipe.pool:
                drawn = keep_pool(
                    recipe.archive, scenes, recipe.seed, recipe.pool, {"data": about["data"]}, recipe.workers, TenthTeller(say)
                )
                pool = ScenePool(drawn, recipe.seed, ranks.device)
                trained = learn(lambda n, batch: lesson(n, Batch(*pool.gather(batch))), int, course, recipe.out)
            else:
                trained = learn(lesson, partial(draw_scene, scenes, recipe.seed), course, recipe.out, collate=collate)
        if ranks.first:
            kept = cast(ZutisNetwork, trained.averaged) if trained.averaged else network
            write_zutis(kept, recipe, archive, masks, clip.provenance, trained.figures)
    return trained.figures


def draw_scene(scenes: CopyPaste, seed: int, number: int) -> PastedScene:
    """Make the number-th scene of a run."""
    return scenes.make_scene(np.random.default_rng((seed, number)))


def encode_class_texts(clip: Clip, recipe: ZutisRecipe, names: tuple[str, ...]) -> Tensor:
    """The unit text features (K, D) of the background and of names, which may be trained against."""
    words = clip.encode_text(Vocabulary.from_entries((name,) for name in (recipe.background, *names)))
    return words.clone()  # read in inference mode


def find_clip(name: str) -> Local:
    """Return a CLIP by its folder, by a model's name or by a preset's; raises InputError and MissingError as they do."""
    if (Path(name) / "card.json").is_file():
        return Local(Card.read(Path(name)), Path(name))
    card = find_card(list_presets()[name].clip if name in list_presets() else name)
    return fetch([card])[0]


def build_network(clip: Local, names: tuple[str, ...], recipe: ZutisRecipe) -> ZutisNetwork:
    """A network with the ViT of a CLIP, and the rest random by the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return ZutisNetwork.from_clip(clip.folder, clip.card.use.get("quick_gelu"), names=names, **recipe.network)


def _remark(archive: Archive, scenes: CopyPaste) -> str:
    used = len(archive.ids) - scenes.left_out
    return f"{len(archive.names)} names, {used} images; {scenes.left_out} without a mask take no part"
