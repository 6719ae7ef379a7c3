"""SelfMask's training (Shin et al., CVPRW 2022): every query chases one pseudo-mask an image, and learns how well it does.

Pseudo-masks come from a vote among spectral clusters, made once and kept.
S px of a training image's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from annofree.datasets.emoji.world import Split, World
from annofree.errors import ImageError, InputError, build_unknown_error
from annofree.features.dino import Dino
from annofree.features.selfmask import save_selfmask
from annofree.features.selfmask_network import SelfMaskConfig, SelfMaskNetwork
from annofree.hub.cards import Card, hash_file
from annofree.io.read_json import read_model_config
from annofree.ops.rle import decode_rle, encode_rle
from annofree.retrieval.archive import MaskWriter, PseudoMask
from annofree.structures import Image
from annofree.training.augment.color import draw_light
from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train
from annofree.training.losses.selfmask_losses import Ranking, compute_selfmask_losses
from annofree.training.selfmask.spectral_voting import SpectralVoter

__all__ = [
    "COURSE",
    "RATE",
    "TINY",
    "Changes",
    "build_network",
    "draw_emoji_images",
    "fit_selfmask",
    "vote_masks",
]

Images = Mapping[str, Callable[[], Image]]
"""Images by id, each opened when it is needed."""
Bytes = npt.NDArray[np.uint8]

COURSE = TrainConfig(steps=1500, batch=16, clip=1.0)
"""Of a tiny network from scratch; the original fine-tunes for 12 rounds of 10,553 images, 8 at a time."""
TINY = SelfMaskConfig(model_args={"embed_dim": 128, "depth": 4, "num_heads": 4}, heads=4, ffn=512)
"""A network from scratch: patches of 8 px, a third of DINO ViT-S/8's width and depth."""
RATE, DECAY = 6e-4, 0.01
"""The learning rate, 6e-6 where DINO is fine-tuned, and the weight decay of AdamW."""

_SPLITS: dict[Split, float] = {"single": 0.6, "mixed": 0.4}


@dataclass(frozen=True)
class Changes:
    """How training images are changed: squashed, scaled, padded, flipped, and seen in another light.

    Padding is at the bottom and the right, in the image's mean color.  Numbers are the original's but where it is named.
    """

    # px of a training image's side; the original's is 224
    side: int = 128
    # part of the side that an image is scaled to, from and to; the original's is from 0.1
    scale: tuple[float, float] = (0.4, 1.0)
    # share of mirrored images
    flip: float = 0.5
    # reach of brightness, contrast, saturation and hue
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    # share of images whose colors are jittered
    jitter_share: float = 0.8
    # share of images without color
    grey: float = 0.2
    # share of blurred images
    blur: float = 0.5
    # their blur in px, from and to
    sigma: tuple[float, float] = (0.1, 2.0)

    def apply(self, rng: np.random.Generator, pixels: Bytes, mask: Bytes) -> tuple[Bytes, Bytes]:
        """Change an image (S, S, 3) and its mask (S, S) alike."""
        size = max(1, int(rng.uniform(*self.scale) * self.side))
        flipped = rng.random() < self.flip
        light = draw_light(rng, self.jitter, self.jitter_share, self.grey, self.blur, self.sigma)
        red, green, blue = pixels.reshape(-1, 3).mean(0).astype(int).tolist()
        image, truth = PIL.Image.fromarray(pixels), PIL.Image.fromarray(mask)
        canvas = PIL.Image.new("RGB", (self.side, self.side), (red, green, blue))
        canvas.paste(image.resize((size, size), PIL.Image.Resampling.BILINEAR))
        drawn = PIL.Image.new("L", (self.side, self.side), 0)
        drawn.paste(truth.resize((size, size), PIL.Image.Resampling.NEAREST))
        changed, found = np.asarray(light.apply(canvas, (red, green, blue))[0]), np.asarray(drawn)
        return (changed[:, ::-1], found[:, ::-1]) if flipped else (changed, found)


def draw_emoji_images(count: int, seed: int, side: int, font: Path | None = None) -> Images:
    """Scenes of the emoji world, drawn when they are opened; 60 % hold a single object.  Their truth is never read.

    Raises MissingError without the emoji font.
    """
    world = World(font)
    splits = np.random.default_rng(seed).choice(list(_SPLITS), count, p=list(_SPLITS.values())).tolist()

    def drawn(index: int, split: Split) -> Callable[[], Image]:
        name = f"{split}-{seed}-{index}"
        return lambda: Image(
            world.draw_scene(np.random.default_rng([seed, index, crc32(split.encode())]), split, side).image, name
        )

    return {f"{split}-{seed}-{index}": drawn(index, split) for index, split in enumerate(splits)}


def vote_masks(
    images: Images, voter: SpectralVoter, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """Vote a mask of each image into ``folder/masks.jsonl``, where earlier ones are kept; their quality is the agreement.

    Returns why some could not be read, by id.  Raises InputError when the masks there were voted otherwise.
    """
    failed: dict[str, str] = {}
    about = {k: v for k, v in voter.provenance.items() if k != "objectness"}
    with MaskWriter(folder, about) as writer:
        left = [(name, opened) for name, opened in images.items() if name not in writer.done]
        known = len(images) - len(left)
        on_progress(known, len(images))
        for done, (name, opened) in enumerate(left, start=known + 1):
            try:
                (vote,) = voter.vote([opened()])
            except ImageError as problem:
                failed[name] = str(problem)
            else:
                writer.add(PseudoMask(name, encode_rle(vote.mask.numpy()), vote.agreement))
            on_progress(done, len(images))
    return failed


def build_network(dino: Path | None = None, queries: int = 20, side: int = 128, seed: int = 0) -> SelfMaskNetwork:
    """Build a network on the DINO of a folder, weights and all, or a tiny one from scratch for images of ``side`` px.

    The decoder's heads are the encoder's, its FFN is four times as wide.  Raises what ``Dino`` raises.
    """
    torch.manual_seed(seed)
    if dino is None:
        return SelfMaskNetwork(replace(TINY, queries=queries, model_args={**TINY.model_args, "img_size": side}))
    heads, width = (reader := Dino(dino)).heads, reader.dimension
    said = read_model_config(dino / "config.json")
    parts = {k: v for k, v in said.items() if k in ("architecture", "model_args", "mean", "std")}
    network = SelfMaskNetwork(SelfMaskConfig(**parts, queries=queries, heads=heads, ffn=4 * width))
    state = load_file(dino / "model.safetensors")
    network.encoder.load_state_dict({k: v.float() for k, v in state.items() if not k.startswith("head.")})
    return network


class _Lessons:
    """Images (N, S, S, 3) and masks (N, S, S) in memory, squashed; the n-th lesson follows from the seed and n."""

    def __init__(self, images: Images, masks: Mapping[str, PseudoMask], changes: Changes, seed: int) -> None:
        known = [name for name in images if name in masks]
        if not known:
            raise InputError("expected at least one image with a mask to learn from, got none; see why they failed")
        self.changes, self.seed = changes, seed
        self.pixels = np.stack([_squashed(images[name]().pixels, changes.side) for name in known])
        self.masks = np.stack([_squashed(decode_rle(masks[name].rle).astype(np.uint8), changes.side) for name in known])

    def __call__(self, number: int) -> tuple[Bytes, Bytes]:
        rng = np.random.default_rng([self.seed, number])
        index = int(rng.integers(len(self.pixels)))
        return self.changes.apply(rng, self.pixels[index], self.masks[index])


def _squashed(pixels: Bytes, side: int) -> Bytes:
    """An image (H, W, 3), bilinear, or a mask (H, W), nearest, as a square."""
    how = PIL.Image.Resampling.BILINEAR if pixels.ndim == 3 else PIL.Image.Resampling.NEAREST
    return np.asarray(PIL.Image.fromarray(pixels).resize((side, side), how))


def _collated(lessons: Sequence[tuple[Bytes, Bytes]]) -> tuple[Tensor, Tensor]:
    pixels, masks = (np.stack(part) for part in zip(*lessons, strict=True))
    return torch.from_numpy(pixels), torch.from_numpy(masks)


def _losses_of(network: SelfMaskNetwork, order: Ranking, device: str) -> Callable[[nn.Module, Any], Mapping[str, Tensor]]:
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (network.config.mean, network.config.std))

    def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        pixels, masks = (part.to(device) for part in batch)
        return compute_selfmask_losses(model((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std), masks.float(), order)

    return losses


def fit_selfmask(
    out: Path,
    network: SelfMaskNetwork,
    images: Images,
    masks: Mapping[str, PseudoMask],
    course: TrainConfig = COURSE,
    *,
    rate: float = RATE,
    changes: Changes | None = None,
    order: Ranking = "paper",
    device: str = "cpu",
    watch: TrainCallbacks | None = None,
    card: Card | None = None,
) -> dict[str, float]:
    """Train a network on pseudo-masks and write it to ``out`` as ``load_selfmask`` reads it; returns the last losses.

    AdamW, all parameters at one ``rate``, which falls by the course's schedule.  Stopped at any step, the same call goes on.
    ``card`` is completed with the files and their hashes.  Raises InputError for an unknown order, and without a mask.
    """
    if order not in get_args(Ranking):
        raise build_unknown_error("order of the ranking loss", order, get_args(Ranking))
    changes = changes or Changes()
    lessons = _Lessons(images, masks, changes, course.seed)
    optimizer = torch.optim.AdamW(network.to(device).parameters(), lr=rate, weight_decay=DECAY)
    about = {"rate": rate, "changes": asdict(changes), "order": order, "pictures": len(lessons.pixels)}
    trained = train(
        network,
        optimizer,
        _losses_of(network, order, device),
        lessons,
        course,
        out,
        collate=_collated,
        watch=watch,
        ranks=DistributedContext(device=device),
        about=about,
    )
    save_selfmask(network, out)
    effort = {f"training {name}": trained.figures[name] for name in ("step", "dice", "ranking", "seconds")}
    if card is not None:
        files = {name: hash_file(out / name) for name in ("config.json", "model.safetensors")}
        replace(card, files=files, figures={**effort, **card.figures}).write(out)
    return effort
