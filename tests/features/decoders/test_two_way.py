"""The two-way decoder at its true width beside transformers' forward pass, and how often it computes what."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from annofree.features.decoders.two_way import ImageSide, TwoWayDecoder
from annofree.ops.linear import replace_linear_layers
from annofree.testing.tolerances import assert_close

CELLS, SIDE = 12, 192


def build(kind: str) -> Any:
    """A SAM or SAM 2 with the decoder of the released ones, on 12 x 12 cells, and an image encoder that nobody asks."""
    torch.manual_seed(0)
    prompt = {"image_size": SIDE, "patch_size": 16, **({"image_embedding_size": CELLS} if kind == "sam" else {})}
    if kind == "sam":
        tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32, "image_size": SIDE}
        vision = tiny | {"global_attn_indexes": [0], "num_pos_feats": 128}
        config: Any = transformers.SamConfig(
            vision_config=vision, prompt_encoder_config=prompt | {"image_embedding_size": CELLS}
        )
        model = transformers.SamModel(config)
    else:
        model = transformers.Sam2Model(transformers.Sam2Config(prompt_encoder_config=prompt))
    with torch.no_grad():
        for name, weights in model.mask_decoder.named_parameters():
            weights.copy_(torch.randn_like(weights) * 0.06 + (1.0 if "norm" in name and weights.ndim == 1 else 0.0))
    return model.eval().requires_grad_(False)


def features(kind: str) -> list[Tensor]:
    """From the finest to the cells."""
    shapes = [(256, CELLS)] if kind == "sam" else [(32, 4 * CELLS), (64, 2 * CELLS), (256, CELLS)]
    return [torch.randn(1, channels, side, side) for channels, side in shapes]


def prompts(count: int, points: int) -> dict[str, Tensor]:
    low = torch.rand(1, count, 2) * SIDE / 2
    given = {"input_boxes": torch.cat([low, low + 10 + torch.rand(1, count, 2) * SIDE / 2], -1)}
    if points:
        given["input_points"] = torch.rand(1, count, points, 2) * SIDE
        given["input_labels"] = torch.randint(0, 2, (1, count, points))
    return given


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize(("count", "points"), [(1, 0), (3, 1), (2, 20)])
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_logits_and_qualities_are_those_of_the_forward_pass(kind: str, count: int, points: int, multimask: bool) -> None:
    model, given = build(kind), prompts(count, points)
    with torch.inference_mode():
        state = features(kind)
        expected = model(image_embeddings=state[0] if kind == "sam" else state, multimask_output=multimask, **given)
        replace_linear_layers(model)
        decoder = TwoWayDecoder(model)
        logits, quality = decoder.decode_prompts(decoder.prepare_image(state[-1], *state[-2::-1]), given, multimask)
    assert logits.shape == (count, 3 if multimask else 1, 4 * CELLS, 4 * CELLS)
    assert float(logits.std()) > 0.1
    assert_close(logits, expected.pred_masks[0], depth="network")
    assert_close(quality, expected.iou_scores[0], depth="network")


def test_the_cells_are_projected_once_an_image() -> None:
    model, calls = build("sam"), Counter[str]()
    for name, module in model.mask_decoder.transformer.named_modules():
        if name.endswith("_proj"):
            module.register_forward_hook(lambda _, given, __, name=name: calls.update({name: given[0].numel() // 256}))
    decoder = TwoWayDecoder(model)
    with torch.inference_mode():
        side: ImageSide = decoder.prepare_image(*features("sam"))
        shared = dict(calls)
        decoder.decode_prompts(side, prompts(5, 0), False)
    assert sorted(shared.values()) == [CELLS**2] * 3
    tokens = {name: count - shared.get(name, 0) for name, count in calls.items()}
    assert max(tokens.values()) == 5 * 7  # five tokens of the decoder, two corners of the box
