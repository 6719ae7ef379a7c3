"""A tiny CLIP as a folder that ``Clip`` reads: configuration, weights, vocabulary, and a card with what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, Scene
from annofree.features.clip import Clip
from annofree.features.tokenizer import Tokenizer
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import write_atomic, write_json
from annofree.structures import Image, Vocabulary
from annofree.training.tiny.budget import summarize_effort
from annofree.training.tiny.evaluate import evaluate_clip

__all__ = ["MEAN", "MODEL", "STD", "USE", "finish_card", "fit_presence", "save_clip", "write_tiny_clip"]

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


def fit_presence(clip: Clip, scenes: list[Scene]) -> list[float]:
    """Fit a logistic from the evidence for a name to whether a caption has it: two weights and an offset."""
    vocabulary = Vocabulary.of(list(CATEGORIES.values()))
    words = clip.encode_text(vocabulary)
    evidence = []
    for scene in scenes:
        image = [Image(scene.image)]
        evidence.append(clip.compute_evidence(clip.encode_image(image)[0], clip.encode_dense(image)[0], words))
    x = torch.cat(evidence).double().cpu()
    y = torch.tensor([i in {o.category_id for o in s.objects} for s in scenes for i in CATEGORIES], dtype=torch.double)
    weights = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weights[:2] + weights[2], y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
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
    return finish_card(card, training, out, calibration, lambda folder: evaluate_clip(folder, font, exam_size))


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
    return {name: hash_file(out / name) for name in files}


def finish_card(
    card: Card,
    training: dict[str, float],
    out: Path,
    calibration: list[Scene],
    examine: Callable[[Path], dict[str, float]],
) -> dict[str, float]:
    """Fit the presence of names on scenes, examine the folder, write both into its card, and return the exam's figures."""
    card.write(out)
    card = replace(card, use={**card.use, "presence": fit_presence(Clip(out), calibration)})
    card.write(out)
    figures = examine(out)
    replace(card, figures=summarize_effort(training) | figures).write(out)
    return figures
