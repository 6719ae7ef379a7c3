"""The bundled tiny CLIP: open_clip's ModifiedResNet and text tower, trained on captions of the emoji world alone.

Two kinds of pictures teach two things: scenes of several objects make the dense map localise, single objects make it
name.  Captions of empty backgrounds keep it quiet where nothing is.  Pictures come from a pool that is refreshed a
little at every step, so rendering costs a few percent of the time and nothing is seen too often.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, Scene, Split, World
from annofree.features.clip import Clip
from annofree.features.clip_resnet import attention_pool
from annofree.features.tokenizer import Tokenizer, vocabulary_of
from annofree.hub.cards import Card, sha256_of
from annofree.io.atomic import write_atomic, write_json
from annofree.structures import Image, Vocabulary
from annofree.training.tiny.evaluate import average_precision, examine_clip
from annofree.training.tiny.loop import Budget, fit

__all__ = ["BUDGET", "MEAN", "MODEL", "POOL", "STD", "train_tiny_clip"]

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "layers": [2, 2, 2, 2], "width": 32, "patch_size": None},
    "text_cfg": {"context_length": 24, "vocab_size": 0, "width": 128, "heads": 4, "layers": 2},
}
"""open_clip's configuration; the vocabulary's size is filled in from the captions."""
USE: dict[str, Any] = {
    "dense_side": 192,
    "shifts": 2,
    "boundary_side": 256,
    "boundary_shifts": 4,
    "whole_side": 128,
    "templates": ["a photo of a {}", "a picture of a {}", "a scene with a {}", "there is a {} here", "a {}"],
    "neutral": list(CATEGORIES.values()),
    "warning": "the tiny models know emoji only; their answers on photographs mean nothing",
}
"""How the card says that the model is best used; the templates are those that its text tower has read."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BUDGET = Budget(samples=450_000, minutes=90, batch=96, lr=1.5e-3)

POOL = 24_000
"""Pictures rendered ahead."""

_SIDE = 128
_SIZES, _SIZE_ODDS = (96, 112, 128, 160), (0.35, 0.25, 0.25, 0.15)
_MIX: dict[Split, float] = {"mixed": 0.58, "single": 0.36, "empty": 0.06}
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "with",
        "is",
        "there",
        "here",
        "photo",
        "picture",
        "scene",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "and",
    ]
)


@dataclass
class Pool:
    """Rendered pictures (N, side, side, 3) and captions; ``refresh`` replaces the oldest few."""

    world: World
    rng: np.random.Generator
    images: npt.NDArray[np.uint8]
    captions: list[str]
    next: int = 0

    @classmethod
    def render(cls, world: World, size: int, seed: int, say: Callable[[str], None], side: int = _SIDE) -> Pool:
        pool = cls(world, np.random.default_rng(seed), np.zeros((size, side, side, 3), np.uint8), [""] * size)
        for done in range(0, size, 4096):
            pool.refresh(min(4096, size - done))
            say(f"rendered {min(done + 4096, size)} of {size} pictures")
        return pool

    def refresh(self, count: int) -> None:
        splits = self.rng.choice(list(_MIX), count, p=list(_MIX.values()))
        for split in splits:
            scene = self.world.scene(self.rng, split, self.images.shape[1])
            self.images[self.next], self.captions[self.next] = scene.image, scene.caption
            self.next = (self.next + 1) % len(self.captions)

    def draw(self, count: int) -> tuple[Tensor, list[str]]:
        return self.at(self.pick(count))

    def pick(self, count: int) -> npt.NDArray[np.int64]:
        return self.rng.integers(len(self.captions), size=count)

    def at(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, list[str]]:
        return torch.from_numpy(self.images[rows]), [self.captions[i] for i in rows]


def prepared(images: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """(B, H, W, 3) uint8 to normalised (B, 3, size, size); a generator adds flips and changes of light."""
    x = images.permute(0, 3, 1, 2).float() / 255
    if generator is not None:
        flip = torch.rand(len(x), generator=generator) < 0.5
        x[flip] = x[flip].flip(-1)
        gain = 0.85 + 0.3 * torch.rand(len(x), 3, 1, 1, generator=generator)
        x = (x * gain + 0.1 * (torch.rand(len(x), 1, 1, 1, generator=generator) - 0.5)).clamp(0, 1)
    if size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _content(caption: str) -> frozenset[str]:
    """The words of a caption that say what is in the picture, without number."""
    return frozenset(w.rstrip("s,") for w in caption.replace(",", "").split() if w not in _STOP)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, captions: list[str]) -> Tensor:
    """InfoNCE both ways over (B, D) unit features, where captions of the same content do not push each other away."""
    logits = scale * image @ text.T
    keys = {key: i for i, key in enumerate(dict.fromkeys(map(_content, captions)))}
    group = torch.tensor([keys[_content(c)] for c in captions])
    same = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool)
    logits = logits.masked_fill(same.to(logits.device), -torch.inf)
    target = torch.arange(len(captions), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def encode_image(model: CLIP, images: Tensor) -> Tensor:
    """Unit image features (B, D) for any square size that is a multiple of 32."""
    v = model.visual
    layer4 = v.layer4(v.layer3(v.layer2(v.layer1(v.stem(images)))))
    return F.normalize(attention_pool(v.attnpool, layer4).float(), dim=-1)


def encode_names(model: CLIP, tokenizer: Tokenizer, names: list[str]) -> Tensor:
    """One unit feature a name (K, D), the mean over the tiny templates."""
    prompts = tokenizer([t.format(n) for n in names for t in USE["templates"]]).to(next(model.parameters()).device)
    features = F.normalize(model.encode_text(prompts).float(), dim=-1)
    return F.normalize(features.view(len(names), len(USE["templates"]), -1).mean(1), dim=-1)


def _batched(scenes: list[Scene], size: int) -> Iterator[Tensor]:
    for start in range(0, len(scenes), 64):
        yield prepared(torch.from_numpy(np.stack([s.image for s in scenes[start : start + 64]])), size)


class Exam:
    """Unseen scenes: single objects with looks seen and kept out, and scenes of several objects; ``encode`` sees them."""

    def __init__(
        self, font: Path | None, seed: int, count: int, encode: Callable[[CLIP, Tensor], Tensor] = encode_image
    ) -> None:
        self.encode = encode
        seen, new = World(font), World(font, held_out=1.0)
        self.single = list(seen.scenes(count, seed, "single", _SIDE))
        kept = {i for i, looks in new.sprites.items() if any(s.held_out for s in looks)}
        drawn = new.scenes(4 * count, seed + 1, "single", _SIDE)
        self.new = [s for s in drawn if s.objects and s.objects[0].category_id in kept]
        self.many = list(seen.scenes(count, seed + 2, "mixed", _SIDE))

    @torch.inference_mode()
    def __call__(self, model: CLIP, tokenizer: Tokenizer) -> dict[str, float]:
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
        by_class = [average_precision(scores[:, k], present[:, k]) for k in range(len(ids))]
        by_scene = [average_precision(a, b) for a, b in zip(scores, present, strict=True)]
        model.train()
        return {
            "top1": top1[0],
            "top1_new_look": top1[1],
            "multi_label_map": float(np.nanmean(by_class)),
            "multi_label_map_by_scene": float(np.nanmean(by_scene)),
        }


def train_tiny_clip(
    out: Path,
    budget: Budget = BUDGET,
    *,
    seed: int = 0,
    font: Path | None = None,
    pool_size: int = POOL,
    exam_size: int = 300,
    calibration_size: int = 300,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    every_minutes: float = 5.0,
) -> dict[str, float]:
    """Render, train, evaluate and write the tiny CLIP to ``out`` in open_clip's folder layout.

    Writes ``open_clip_config.json``, ``open_clip_model.safetensors`` (fp16), ``vocabulary.json`` and returns the
    figures measured on ``exam_size`` scenes drawn from other seeds; ``calibration_size`` scenes fit the presence of names.
    Raises MissingError without the emoji font.
    """
    torch.manual_seed(seed)
    world = World(font)
    pool = Pool.render(world, pool_size, seed, say)
    vocabulary = vocabulary_of([*pool.captions, *CATEGORIES.values(), *(t.format("") for t in USE["templates"])])
    tokenizer = Tokenizer(MODEL["text_cfg"]["context_length"], vocabulary)
    config = MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": tokenizer.size}}
    model = CLIP(**config).to(device=device, memory_format=torch.channels_last).train()
    exam = Exam(font, seed=7_000_000 + seed, count=exam_size)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(progress: float) -> Tensor:
        pool.refresh(max(1, budget.batch // 12))
        images, captions = pool.draw(budget.batch)
        size = int(pool.rng.choice(_SIZES, p=_SIZE_ODDS))
        x = prepared(images, size, generator).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            image, text = encode_image(model, x), model.encode_text(tokenizer(captions).to(device))
        scale = model.logit_scale.exp().clamp(max=100)
        return contrastive_loss(image, F.normalize(text.float(), dim=-1), scale, captions)

    measure = functools.partial(exam, model, tokenizer)
    figures = fit(
        model, loss_of, budget, out,
        measure=measure, say=say, every_minutes=every_minutes,
        generators=(generator, pool.rng), about={"seed": seed, "pool": pool_size},
    )  # fmt: skip
    calibration = list(world.scenes(calibration_size, 8_000_000 + seed, "mixed"))
    return write_tiny_clip(model, tokenizer, figures, out, calibration, font=font, exam_size=exam_size)


def fitted_presence(clip: Clip, scenes: list[Scene]) -> list[float]:
    """Fit a logistic from the evidence for a name to whether a caption has it: two weights and an offset."""
    vocabulary = Vocabulary.of(list(CATEGORIES.values()))
    words = clip.words(vocabulary)
    evidence = []
    for scene in scenes:
        image = [Image(scene.image)]
        evidence.append(clip.evidence(clip.whole(image)[0], clip.dense(image)[0], words))
    x = torch.cat(evidence).double().cpu()
    y = torch.tensor([i in {o.category_id for o in s.objects} for s in scenes for i in CATEGORIES], dtype=torch.double)
    weights = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weights[:2] + weights[2], y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return [round(w, 4) for w in weights.tolist()]


def write_tiny_clip(
    model: CLIP,
    tokenizer: Tokenizer,
    training: dict[str, float],
    out: Path,
    calibration: list[Scene],
    *,
    font: Path | None = None,
    exam_size: int = 300,
) -> dict[str, float]:
    """Write configuration, weights (fp16), vocabulary and card to a folder that ``Clip`` reads, and return its exam's figures.

    ``training`` tells how far it got: samples, minutes, loss.
    """
    card = Card(
        name="tiny-clip",
        family="open_clip ModifiedResNet",
        tier="S1",
        licence="Apache-2.0",
        code_licence="Apache-2.0",
        kind="clip",
        trained_on="captions of rendered scenes of the emoji world",
        world="emoji",
        files=save_clip(model, tokenizer, MODEL, out),
        use=USE,
    )
    return finish_card(card, training, out, calibration, lambda folder: examine_clip(folder, font, exam_size))


def save_clip(model: CLIP, tokenizer: Tokenizer, config: dict[str, Any], out: Path) -> dict[str, str]:
    """Write a model folder without its card, the weights in fp16; return the SHA-256 of its files."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    config = config | {"text_cfg": config["text_cfg"] | {"vocab_size": tokenizer.size}}
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    write_json(out / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    write_json(out / "vocabulary.json", tokenizer.vocabulary)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    write_atomic(out / "open_clip_model.safetensors", lambda p: save_file(state, p))
    files = ("open_clip_config.json", "vocabulary.json", "open_clip_model.safetensors")
    return {name: sha256_of(out / name) for name in files}


def finish_card(
    card: Card,
    training: dict[str, float],
    out: Path,
    calibration: list[Scene],
    examine: Callable[[Path], dict[str, float]],
) -> dict[str, float]:
    """Fit the presence of names on scenes, examine the folder, write both into its card, and return the exam's figures."""
    card.write(out)
    card = replace(card, use={**card.use, "presence": fitted_presence(Clip(out), calibration)})
    card.write(out)
    figures = examine(out)
    replace(card, figures=_effort(training) | figures).write(out)
    return figures


def _effort(training: dict[str, float]) -> dict[str, float]:
    return {f"training {name}": training[name] for name in ("samples", "minutes", "loss") if name in training}
