"""The bundled tiny DINO: timm's VisionTransformer, trained on pictures of the emoji world alone, without any label.

Self-distillation over crops (DINO) teaches the class token, and a loss on masked patches (iBOT), by another head, the patches.
Captions, masks and names of the scenes are never read: supervision tier S0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import save_file
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.datasets.emoji_world import Split, World
from annofree.features.weights import Card, sha256_of
from annofree.formats.files import write_atomic, write_json
from annofree.training.dino_loss import TEACHER_TEMPERATURE, Head, across_views, cross_entropy, momentum, moved, targets
from annofree.training.exams_saliency import examine_dino
from annofree.training.loop import Budget, fit

__all__ = ["ARCHITECTURE", "BUDGET", "MODEL", "POOL", "USE", "new_model", "train_tiny_dino", "write_tiny_dino"]

ARCHITECTURE = "vit_small_patch8_224"
MODEL: dict[str, Any] = {"img_size": 96, "embed_dim": 128, "depth": 5, "num_heads": 4}
"""timm's arguments: patches of 8 px, a tenth of ViT-S/8's multiplications for a picture of the same size."""
USE: dict[str, Any] = {"side": 128, "positions": "bicubic-antialias"}
"""How the card says that the model is best used; positions are resized as in training."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BUDGET = Budget(samples=400_000, minutes=35, batch=48, lr=1.5e-3, weight_decay=0.04, warmup=0.08)

POOL = 8_000
"""Pictures rendered ahead."""

_SIDE = 128  # px of a rendered picture
_MIX: dict[Split, float] = {"plain": 0.3, "touching": 0.1, "mixed": 0.3, "single": 0.3}
_SIZES, _SIZE_ODDS = (64, 96), (0.8, 0.2)  # px of a global crop; a local one has half
_GLOBAL, _LOCAL = (0.4, 1.0), (0.08, 0.4)  # area of a crop
_LOCALS = 4
_PROTOTYPES = 512
_MOMENTUM = 0.985
_FROZEN = 0.05  # of a run, in which the prototypes stay as they are


@dataclass
class _Pool:
    """Rendered pictures (N, H, W, 3); ``refresh`` replaces the oldest few."""

    world: World
    rng: np.random.Generator
    images: npt.NDArray[np.uint8]
    next: int = 0

    @classmethod
    def render(cls, world: World, size: int, seed: int, say: Callable[[str], None]) -> _Pool:
        pool = cls(world, np.random.default_rng(seed), np.zeros((size, _SIDE, _SIDE, 3), np.uint8))
        for done in range(0, size, 4000):
            pool.refresh(min(4000, size - done))
            say(f"rendered {min(done + 4000, size)} of {size} pictures")
        return pool

    def refresh(self, count: int) -> None:
        for split in self.rng.choice(list(_MIX), count, p=list(_MIX.values())):
            self.images[self.next] = self.world.scene(self.rng, split, _SIDE).image
            self.next = (self.next + 1) % len(self.images)

    def draw(self, count: int) -> Tensor:
        """Pictures (count, 3, H, W) in 0 .. 1."""
        chosen = self.images[self.rng.integers(len(self.images), size=count)]
        return torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class _Augment:
    """Random crops in random colours; everything random comes from one generator."""

    generator: torch.Generator

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def lit(self, x: Tensor) -> Tensor:
        """Each picture (B, 3, H, W) in another light: normalised."""
        x = self.blurred(self.clouded(self.coloured(x)))
        return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    def cropped(self, images: Tensor, size: int, area: tuple[float, float]) -> Tensor:
        """Resized crops of a share ``area`` of each picture, 3:4 to 4:3, half of them flipped."""
        share, ratio = self.between(*area, len(images)), self.between(-0.28, 0.28, len(images)).exp()
        extent = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], 1).clamp(max=1)
        centre = self.between(-1, 1, len(images), 2) * (1 - extent)
        flip = torch.where(self.between(0, 1, len(images)) < 0.5, -1.0, 1.0)
        theta = torch.diag_embed(extent * torch.stack([flip, torch.ones_like(flip)], 1))
        grid = F.affine_grid(torch.cat([theta, centre[..., None]], 2), [len(images), 3, size, size], align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def coloured(self, x: Tensor) -> Tensor:
        """Other brightness, contrast, saturation and hue, a tenth without colour."""
        count = len(x)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + self.between(0.7, 1.3, count, 1, 1, 1) * (x - mean)
        saturation = self.between(0.6, 1.4, count) * (self.between(0, 1, count) > 0.1)
        turn = _colour_matrices(saturation, self.between(-0.6, 0.6, count))
        x = torch.einsum("bij,bjhw->bihw", turn, x) * self.between(0.7, 1.3, count, 1, 1, 1)
        return x.clamp(0, 1)

    def clouded(self, x: Tensor) -> Tensor:
        """Clouds of light of many colours, broad and fine, other ones in each view.

        They leave shapes as they are and make a background's own colour and grain no sign of the picture that it is from:
        otherwise the class token looks at backgrounds, which fill most of a scene, and not at things.
        """
        count, size = len(x), x.shape[-1]
        broad, fine = (
            F.interpolate(self.between(-1, 1, count, 3, cells, cells), size=(size, size), mode="bilinear")
            for cells in (3, size // 4)
        )
        return (x + self.between(0, 0.6, count, 1, 1, 1) * (0.7 * broad + 0.3 * fine)).clamp(0, 1)

    def blurred(self, x: Tensor) -> Tensor:
        """Half of the pictures, mixed to some degree with their mean over 3 x 3 px."""
        soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return x + self.between(-1, 1, len(x), 1, 1, 1).clamp(min=0) * (soft - x)

    def masks(self, count: int, cells: int) -> Tensor:
        """Patches to hide (count, cells, cells) bool: connected blobs over 10 to 50 % of half of the views."""
        noise = F.interpolate(self.between(0, 1, count, 1, 4, 4), size=(cells, cells), mode="bicubic")[:, 0].flatten(1)
        hidden = self.between(0.1, 0.5, count) * (self.between(0, 1, count) < 0.5)
        rank = noise.argsort(1).argsort(1)
        return (rank < (hidden * cells**2).long()[:, None]).view(count, cells, cells)


def _colour_matrices(saturation: Tensor, hue: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn colours by ``hue`` radians about grey and stretch them from grey by ``saturation``."""
    grey = torch.full((3, 3), 1 / 3)
    side = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    cos, sin = hue.cos()[:, None, None], hue.sin()[:, None, None]
    return grey + saturation[:, None, None] * (cos * (torch.eye(3) - grey) + sin * side)


def new_model(seed: int = 0) -> VisionTransformer:
    """Build the tiny model with random weights; it takes any square or oblong picture of whole patches."""
    torch.manual_seed(seed)
    built = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, dynamic_img_size=True, **MODEL)
    model = cast(VisionTransformer, built)
    for block in model.blocks.children():  # in bfloat16 on a CPU, plain attention is twice as fast to train
        cast(Attention, cast(Block, block).attn).fused_attn = False  # type: ignore[misc]
    return model


class _Pair(nn.Module):
    """A student and its teacher, each a transformer, a head for class tokens and one for patches."""

    student: nn.ModuleList
    teacher: nn.ModuleList

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.student, self.teacher = (nn.ModuleList([new_model(seed), _new_head(), _new_head()]) for _ in range(2))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)


def _new_head() -> Head:
    return Head(MODEL["embed_dim"], _PROTOTYPES)


def _tokens(model: nn.Module, pixels: Tensor) -> Tensor:
    """Normed tokens (B, 1 + h * w, D) of normalised pixels."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        tokens: Tensor = cast(VisionTransformer, model).forward_features(pixels)
    return tokens


def _hidden(pixels: Tensor, masks: Tensor) -> Tensor:
    """Paint the masked patches in the mean colour."""
    patch = pixels.shape[-1] // masks.shape[-1]
    painted: Tensor = pixels.masked_fill(masks.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None], 0.0)
    return painted


def _step(pair: _Pair, images: Tensor, size: int, augment: _Augment, progress: float, device: str) -> Tensor:
    """Loss of a batch of pictures (B, 3, H, W); the teacher first moves to what the student has become."""
    moved(pair.teacher, pair.student, momentum(progress, _MOMENTUM))
    crops = torch.cat([augment.cropped(images, size, _GLOBAL) for _ in range(2)])
    wide = augment.lit(crops).to(device)
    near = augment.lit(torch.cat([augment.cropped(images, size // 2, _LOCAL) for _ in range(_LOCALS)])).to(device)
    masks = augment.masks(len(wide), size // 8).to(device)
    chosen, frozen = masks.flatten(1), progress < _FROZEN
    (student, read, read_patches), (teacher, told, told_patches) = pair.student, pair.teacher
    with torch.no_grad():
        seen = _tokens(teacher, wide)
        whole = targets(told(seen[:, 0])).view(2, len(images), -1)
        parts = targets(told_patches(seen[:, 1:][chosen]))
    guessed = _tokens(student, _hidden(wide, masks))
    classes = torch.cat([guessed[:, 0], _tokens(student, near)[:, 0]])
    views = read(classes, frozen).view(2 + _LOCALS, len(images), -1)
    return across_views(views, whole) + cross_entropy(read_patches(guessed[:, 1:][chosen], frozen), parts).mean()


@torch.inference_mode()
def _health(pair: _Pair, images: Tensor, device: str) -> dict[str, float]:
    """Signs of collapse, each in 0 .. 1: how undecided the teacher is, and over how many prototypes it spreads pictures."""
    model, head, _ = pair.teacher
    pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    p = (head(_tokens(model, pixels.to(device))[:, 0]) / TEACHER_TEMPERATURE).softmax(1)
    undecided, spread = (-(q * q.clamp(min=1e-9).log()).sum(-1).mean() / np.log(p.shape[1]) for q in (p, p.mean(0)))
    return {"undecided": float(undecided), "spread": float(spread)}


def train_tiny_dino(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 150,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    every_minutes: float = 5.0,
) -> dict[str, float]:
    """Render, train, examine and write the tiny DINO to ``out`` in timm's layout: the teacher's transformer.

    Returns the figures of ``examine_dino`` on ``exam_size`` scenes of other seeds.  Raises MissingError without the emoji font.
    """
    pool = _Pool.render(World(font), pool_size, seed, say)
    pair = _Pair(seed).to(device).train()
    augment = _Augment(torch.Generator().manual_seed(seed))
    watched = pool.draw(min(256, pool_size))

    def loss_of(progress: float) -> Tensor:
        pool.refresh(max(1, budget.batch // 12))
        size = int(pool.rng.choice(_SIZES, p=_SIZE_ODDS))
        return _step(pair, pool.draw(budget.batch), size, augment, progress, device)

    figures = fit(
        pair, loss_of, budget, out, measure=lambda: _health(pair, watched, device), say=say, every_minutes=every_minutes
    )
    model = cast(VisionTransformer, pair.teacher[0])
    return write_tiny_dino(model, figures, out, font=font, exam_size=exam_size)


def write_tiny_dino(
    model: VisionTransformer, training: dict[str, float], out: Path, *, font: Path | None = None, exam_size: int = 150
) -> dict[str, float]:
    """Write configuration, weights (fp16) and card to a folder that ``Dino`` reads, and return its exam's figures.

    ``training`` tells how far it got: samples, minutes, loss.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", {"architecture": ARCHITECTURE, "model_args": MODEL, "mean": MEAN, "std": STD}, indent=2)
    state = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    write_atomic(out / "model.safetensors", lambda p: save_file(state, p, metadata={"format": "pt"}))
    card = Card(
        name="tiny-dino",
        family="timm VisionTransformer",
        tier="S0",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        kind="dino",
        trained_on="rendered scenes of the emoji world, without captions, masks or names",
        world="emoji",
        files={name: sha256_of(out / name) for name in ("config.json", "model.safetensors")},
        use=USE,
    )
    card.write(out)
    figures = examine_dino(out, font, exam_size)
    effort = {f"training {name}": training[name] for name in ("samples", "minutes", "loss") if name in training}
    replace(card, figures=effort | figures).write(out)
    return figures
