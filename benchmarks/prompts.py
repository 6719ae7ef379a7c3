"""Prompts of a SAM and texts of a CLIP, random weights at true size, beside the plain forward pass of their libraries.

    uv run python benchmarks/prompts.py --threads 1

Both sides take turns in one process; processor-seconds, the least of some turns.  Masks are compared at the logits' size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
import transformers
from open_clip.model import CLIP
from torch import Tensor

from annofree.features.decoders.two_way import TwoWayDecoder
from annofree.features.prompts import resolve_templates
from annofree.features.tokenizer import Tokenizer
from annofree.features.towers.text import encode_text_tokens
from annofree.ops.linear import replace_linear_layers

FAMILIES = {"sam": ("SamModel", "SamConfig"), "sam2": ("Sam2Model", "Sam2Config"), "edgetam": ("EdgeTamModel", "EdgeTamConfig")}
LEVELS = ((32, 256), (64, 128), (256, 64))  # channels and side of SAM 2's features, the cells last
NAMES = ("dog", "bicycle", "traffic light")
Answer = tuple[Tensor, Tensor]


def build_sam(kind: str) -> Any:
    """A SAM in its default size, that is ViT-B, SAM 2.1 tiny or EdgeTAM."""
    model, config = (getattr(transformers, name) for name in FAMILIES[kind])
    torch.manual_seed(0)
    return model(config()).eval().requires_grad_(False)


def least(turns: int, *sides: Callable[[], Any]) -> tuple[list[float], list[Any]]:
    """The least processor-seconds of each side, which take turns, and what each said last."""
    seconds, said = [float("inf")] * len(sides), [None] * len(sides)
    for turn in range(turns + 1):
        for k, side in enumerate(sides):
            start = time.process_time()
            said[k] = side()
            seconds[k] = min(seconds[k], time.process_time() - start if turn else float("inf"))
    return seconds, said


def measure_prompts(kind: str, count: int, turns: int) -> str:
    """So many boxes in one image, decoded 64 at once by transformers and one by one here."""
    plain, ours = build_sam(kind), build_sam(kind)
    replace_linear_layers(ours)
    decoder = TwoWayDecoder(ours)
    state = [torch.randn(1, *shape, shape[-1]) for shape in (LEVELS[2:] if kind == "sam" else LEVELS)]
    low = torch.rand(1, count, 2) * 600
    boxes = torch.cat([low, low + 30 + torch.rand(1, count, 2) * 380], -1)

    def ask_transformers() -> Answer:
        found = [plain(image_embeddings=state[0] if kind == "sam" else list(state), input_boxes=b, multimask_output=False)
                 for b in torch.split(boxes, 64, 1)]  # fmt: skip
        return torch.cat([f.pred_masks[0] for f in found]), torch.cat([f.iou_scores[0] for f in found])

    def ask_here() -> Answer:
        side = decoder.prepare_image(state[-1], *state[-2::-1])
        found = [decoder.decode_prompts(side, {"input_boxes": b}, False) for b in torch.split(boxes, 1, 1)]
        return torch.cat([m for m, _ in found]), torch.cat([q for _, q in found])

    (before, after), (expected, found) = least(turns, ask_transformers, ask_here)
    astray, pixels = int(((expected[0] > 0) != (found[0] > 0)).sum()), found[0].numel()
    return (
        f"{kind:8} {count:3} boxes: {count / before:6.1f} prompts a second of the processor, here {count / after:6.1f}, "
        f"{before / after:.2f} times; {astray} of {pixels} pixels differ, logits by {_apart(expected[0], found[0]):.1e}, "
        f"qualities by {_apart(expected[1], found[1]):.1e}"
    )


def measure_texts(turns: int) -> str:
    """The prompts of three names by the text tower of ViT-B/16."""
    torch.manual_seed(0)
    plain, ours = (CLIP(**open_clip.get_model_config("ViT-B-16"), quick_gelu=True).eval() for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    replace_linear_layers(ours)
    texts = Tokenizer(77)([t.replace("{}", name) for name in NAMES for t in resolve_templates("ensemble")])
    sides = (lambda: plain.encode_text(texts)), (lambda: encode_text_tokens(ours, texts))
    (before, after), (expected, found) = least(turns, *sides)
    return (
        f"texts    {len(texts):3}: {len(texts) / before:6.1f} a second of the processor, here {len(texts) / after:6.1f}, "
        f"{before / after:.2f} times; features differ by {_apart(expected, found):.1e}"
    )


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each family, and one for texts."""
    parser = argparse.ArgumentParser(description="SAM's prompts and CLIP's texts beside the plain forward pass.")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--boxes", type=int, default=32)
    parser.add_argument("--turns", type=int, default=2, help="after one that does not count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-texts", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    for kind in asked.families:
        print(measure_prompts(kind, asked.boxes, asked.turns), flush=True)
    if not asked.no_texts:
        print(measure_texts(asked.turns), flush=True)


if __name__ == "__main__":
    main()
