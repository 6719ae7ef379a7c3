"""Texts on as many positions as they have, against open_clip's own forward pass on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor

from annofree.features.towers.text import encode_text_tokens
from annofree.testing.tolerances import assert_close

END, LENGTH = 90, 40
VISION = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}


def build(kind: type[Any] = CLIP, **text: Any) -> Any:
    torch.manual_seed(0)
    own = {"context_length": LENGTH, "vocab_size": END + 1, "width": 32, "heads": 2, "layers": 3, **text}
    model = kind(embed_dim=24, vision_cfg=VISION, text_cfg=own, quick_gelu=True).eval().requires_grad_(False)
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.normal_(std=0.3)
    return model


def texts(*lengths: int) -> Tensor:
    """Random ids of some lengths, the end included, then padding."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.zeros(len(lengths), LENGTH, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, END, (length,), generator=random)
        tokens[row, length - 1] = END
    return tokens


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize("lengths", [(5,), (7, 2, LENGTH, 12), tuple(range(2, LENGTH + 1)) * 3])
def test_features_are_those_of_all_positions(kind: type[Any], lengths: tuple[int, ...]) -> None:
    model, tokens = build(kind), texts(*lengths)
    with torch.inference_mode():
        assert_close(encode_text_tokens(model, tokens), model.encode_text(tokens), depth="network")


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_towers_that_look_at_the_padding_are_asked_as_they_are(text: dict[str, Any]) -> None:
    model, tokens = build(CustomTextCLIP, **text), texts(5, 9)
    with torch.inference_mode():
        assert torch.equal(encode_text_tokens(model, tokens), model.encode_text(tokens))


def test_a_linear_projection_is_applied() -> None:
    model, tokens = build(CustomTextCLIP, proj_bias=True), texts(4, 6, 11)
    with torch.inference_mode():
        assert_close(encode_text_tokens(model, tokens), model.encode_text(tokens), depth="network")


def test_no_texts() -> None:
    with torch.inference_mode():
        assert encode_text_tokens(build(), texts()).shape == (0, 24)


def test_no_more_positions_are_computed_than_there_are() -> None:
    model, seen = build(), []
    model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        encode_text_tokens(model, texts(9, 4, 6))
    assert seen == [(3, 9, 32)]
