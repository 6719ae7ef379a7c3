"""The bundled tiny CLIP: open_clip's ModifiedResNet and text tower, trained on captions of the emoji world alone.

Two kinds of images teach two things: scenes of several objects make the dense map localise, single objects make it
name.  Captions of empty backgrounds keep it quiet where nothing is.  Images come from a pool that moves on a
little at every step, so rendering costs a few percent of the time and nothing is seen too often.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, Scene, Split, World
from annofree.features.tokenizer import Tokenizer, collect_token_ids
from annofree.features.towers.resnet import pool_attention
from annofree.training.augment.photometric import PhotometricChange, RandomDraw, hide_parts
from annofree.training.tiny.budget import Budget, check_folder, find_generator, make_rng, train_on_budget
from annofree.training.tiny.clip_export import MEAN, MODEL, STD, USE, write_tiny_clip
from annofree.training.tiny.evaluate import compute_average_precision
from annofree.training.tiny.pool import Pool

__all__ = ["BUDGET", "POOL", "Batch", "Captioned", "Exam", "Example", "fit_tiny_clip"]

BUDGET = Budget(samples=293_280, batch=96, lr=1.5e-3)
"""Takes 90 minutes on one core; the bundled model saw 3.4 times as many on a GPU (`benchmarks/train_tiny_models.py`)."""

POOL = 24_000
"""Images rendered ahead."""

_SIDE = 128
_AT_ONCE = 32  # images that a process draws in turn
_SIZES, _SIZE_ODDS = (96, 112, 128, 160), (0.35, 0.25, 0.25, 0.15)
_MIX: dict[Split, float] = {"mixed": 0.58, "single": 0.36, "empty": 0.06}
_STOP = {
    *("a", "an", "the", "of", "with", "is", "there", "here", "photo", "picture", "scene", "and"),
    *("one", "two", "three", "four", "five", "six"),
}


class Captioned(NamedTuple):
    """A rendered image (side, side, 3) and its caption."""

    image: npt.NDArray[np.uint8]
    caption: str


class Example(NamedTuple):
    """A captioned image, and the ``size`` in px at which its batch is seen."""

    picture: Captioned
    size: int


class Batch(NamedTuple):
    """B images (B, H, W, 3) uint8, their captions' ``tokens`` (B, T) and ``groups`` (B), to be seen at ``size`` px."""

    images: Tensor
    tokens: Tensor
    groups: Tensor
    size: int


def render(world: World, seed: int, side: int, numbers: Iterable[int]) -> list[Captioned]:
    """Draw the images of some numbers, each from its number alone."""
    drawn = []
    for number in numbers:
        rng = make_rng("picture", seed, number)
        split: Split = rng.choice(list(_MIX), p=list(_MIX.values()))
        scene = world.draw_scene(rng, split, side)
        drawn.append(Captioned(scene.image, scene.caption))
    return drawn


def make_pool(world: World, size: int, seed: int, fresh: int) -> Pool[Captioned]:
    """A pool of captioned images of 128 px."""
    return Pool(functools.partial(render, world, seed, _SIDE), size, fresh, _AT_ONCE)


class _Draw:
    """Draws the number-th example of a run: an image of the pool, at a size that all of its step share."""

    def __init__(self, pool: Pool[Captioned], batch: int, seed: int) -> None:
        self.pool, self.batch, self.seed = pool, batch, seed

    def __call__(self, number: int) -> Example:
        step = number // self.batch
        image = self.pool.pick(step, make_rng("example", self.seed, number))
        return Example(image, int(make_rng("step", self.seed, step).choice(_SIZES, p=_SIZE_ODDS)))


def collate(examples: list[Example], tokenizer: Tokenizer) -> Batch:
    """Put the examples of a step into a batch."""
    images = torch.from_numpy(np.stack([example.picture.image for example in examples]))
    captions = [example.picture.caption for example in examples]
    return Batch(images, tokenizer(captions), group_captions(captions), examples[0].size)


def prepare_images(images: Tensor, size: int, generator: torch.Generator | None = None, varied: float = 0.0) -> Tensor:
    """(B, H, W, 3) uint8 to normalized (B, 3, size, size); a generator of their device adds flips and changes of light.

    A share ``varied`` of the images is also shown in other colors, softer or sharper, and partly hidden.
    """
    x = images.permute(0, 3, 1, 2).float() / 255
    if generator is not None:
        draw = RandomDraw(generator)
        x = torch.where(draw.draw_booleans(0.5, len(x), 1, 1, 1), x.flip(-1), x)
        gain, shift = draw.draw_between(0.85, 1.15, len(x), 3, 1, 1), draw.draw_between(-0.05, 0.05, len(x), 1, 1, 1)
        x = (x * gain + shift).clamp(0, 1)
        if varied:
            changed = hide_parts(PhotometricChange(generator)(x), draw)
            x = torch.where(draw.draw_booleans(varied, len(x), 1, 1, 1), changed, x)
    if size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = x.new_tensor(MEAN).view(3, 1, 1), x.new_tensor(STD).view(3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _content(caption: str) -> frozenset[str]:
    """The words of a caption that say what is in the image, without number."""
    return frozenset(w.rstrip("s,") for w in caption.replace(",", "").split() if w not in _STOP)


def group_captions(captions: list[str]) -> Tensor:
    """Number captions (B) such that those of the same content have the same number."""
    contents = [_content(c) for c in captions]
    keys = {key: i for i, key in enumerate(dict.fromkeys(contents))}
    return torch.tensor([keys[content] for content in contents])


def compute_contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, groups: Tensor) -> Tensor:
    """InfoNCE both ways over (B, D) unit features, where captions of one group (B) do not push each other away."""
    logits = scale * image @ text.T
    same = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(groups), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def encode_image(model: CLIP, images: Tensor) -> Tensor:
    """Unit image features (B, D) for any square size that is a multiple of 32."""
    v = model.visual
    layer4 = v.layer4(v.layer3(v.layer2(v.layer1(v.stem(images)))))
    return F.normalize(pool_attention(v.attnpool, layer4).float(), dim=-1)


def encode_names(model: CLIP, tokenizer: Tokenizer, names: list[str]) -> Tensor:
    """One unit feature a name (K, D), the mean over the tiny templates."""
    prompts = tokenizer([t.format(n) for n in names for t in USE["templates"]]).to(next(model.parameters()).device)
    features = F.normalize(model.encode_text(prompts).float(), dim=-1)
    return F.normalize(features.view(len(names), len(USE["templates"]), -1).mean(1), dim=-1)


def _batched(scenes: list[Scene], size: int) -> Iterator[Tensor]:
    for start in range(0, len(scenes), 64):
        yield prepare_images(torch.from_numpy(np.stack([s.image for s in scenes[start : start + 64]])), size)


class Exam:
    """Unseen scenes: single objects with looks seen and kept out, and scenes of several objects; ``encode`` sees them."""

    def __init__(
        self, font: Path | None, seed: int, count: int, encode: Callable[[CLIP, Tensor], Tensor] = encode_image
    ) -> None:
        self.encode = encode
        seen, new = World(font), World(font, held_out=1.0)
        self.single = list(seen.draw_scenes(count, seed, "single", _SIDE))
        kept = {i for i, looks in new.sprites.items() if any(s.held_out for s in looks)}
        drawn = new.draw_scenes(4 * count, seed + 1, "single", _SIDE)
        self.new = [s for s in drawn if s.objects and s.objects[0].category_id in kept]
        self.many = list(seen.draw_scenes(count, seed + 2, "mixed", _SIDE))

    @torch.inference_mode()
    def __call__(self, model: CLIP, tokenizer: Tokenizer) -> dict[str, float]:
        """How often single objects are named right, and the label mAP of many."""
        model.eval()
        ids = np.array(list(CATEGORIES))
        names = encode_names(model, tokenizer, list(CATEGORIES.values()))
        top1 = []
        for scenes in (self.single, self.new):
            found = torch.cat([self.encode(model, x.to(names)) @ names.T for x in _batched(scenes, _SIDE)]).cpu()
            truth = [s.objects[0].category_id for s in scenes if s.objects]
            top1.append(float((ids[found.argmax(1).numpy()][[bool(s.objects) for s in scenes]] == truth).mean()))
        scores = torch.cat([self.encode(model, x.to(names)) @ names.T for x in _batched(self.many, _SIDE)]).cpu().numpy()
        present = np.array([[i in {o.category_id for o in s.objects} for i in ids] for s in self.many])
        by_class = [compute_average_precision(scores[:, k], present[:, k]) for k in range(len(ids))]
        by_scene = [compute_average_precision(a, b) for a, b in zip(scores, present, strict=True)]
        model.train()
        return {
            "top1": top1[0],
            "top1_new_look": top1[1],
            "multi_label_map": float(np.nanmean(by_class)),
            "multi_label_map_by_scene": float(np.nanmean(by_scene)),
        }


def fit_tiny_clip(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 300,
    calibration_size: int = 300,
    varied: float = 0.0,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Render, train, evaluate and write the tiny CLIP to ``out`` in open_clip's folder layout.

    A share ``varied`` of the images is shown in other colors, blurred and partly hidden.
    Writes ``open_clip_config.json``, ``open_clip_model.safetensors`` (fp16), ``vocabulary.json`` and returns the
    figures measured on ``exam_size`` scenes drawn from other seeds; ``calibration_size`` scenes fit the presence of names.
    Raises MissingError without the emoji font, InputError where ``out`` holds a run with other settings.
    """
    world, about = World(font), {"pool": pool_size, "varied": varied}
    check_folder(out, budget, seed, about)
    pool = make_pool(world, pool_size, seed, fresh=0 if budget.workers else max(1, budget.batch // 12))
    pool.fill(say, workers=budget.workers)
    captions = [pool.draw_thing(number).caption for number in pool.find_window(0)]
    vocabulary = collect_token_ids([*captions, *CATEGORIES.values(), *(t.format("") for t in USE["templates"])])
    tokenizer = Tokenizer(MODEL["text_cfg"]["context_length"], vocabulary)
    model = _new_model(tokenizer, seed).to(device=device, memory_format=torch.channels_last)
    exam = Exam(font, seed=7_000_000 + seed, count=exam_size)
    training = train_on_budget(
        model, functools.partial(_losses_of, varied=varied, device=device), _Draw(pool, budget.batch, seed), budget, out,
        collate=functools.partial(collate, tokenizer=tokenizer), seed=seed, device=device,
        measure=functools.partial(exam, model, tokenizer),
        on_progress=on_progress, say=say, about=about,
    )  # fmt: skip
    calibration = list(world.draw_scenes(calibration_size, 8_000_000 + seed, "mixed"))
    return write_tiny_clip(model, tokenizer, training, out, calibration, font=font, exam_size=exam_size)


def _new_model(tokenizer: Tokenizer, seed: int) -> CLIP:
    config = MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": tokenizer.size}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(**config)


def _losses_of(model: Any, batch: Batch, *, varied: float, device: str) -> dict[str, Tensor]:
    images, tokens, groups = (part.to(device, non_blocking=True) for part in batch[:3])
    x = prepare_images(images, batch.size, find_generator(device), varied)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        image, text = encode_image(model, x), model.encode_text(tokens)
    scale = model.logit_scale.exp().clamp(max=100)
    return {"contrastive": compute_contrastive_loss(image, F.normalize(text.float(), dim=-1), scale, groups)}
