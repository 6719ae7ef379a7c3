"""Linear layers through oneDNN beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from annofree.ops.linear import apply_linear, replace_linear_layers
from annofree.testing.tolerances import assert_close


@pytest.mark.parametrize("shape", [(7, 160), (2, 3, 160), (1, 160), (0, 160), (5, 0, 160)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    x, weight, added = torch.randn(shape), torch.randn(80, 160), torch.randn(80) if bias else None
    with torch.inference_mode():
        assert_close(apply_linear(x, weight, added), F.linear(x, weight, added), depth="network")


def test_what_is_not_laid_out_in_one_piece() -> None:
    x, weight = torch.randn(160, 40).T, torch.randn(160, 80).T
    assert_close(apply_linear(x, weight), F.linear(x, weight), depth="network")
    part = torch.randn(4, 9, 320)[:, 1:, ::2]
    assert_close(apply_linear(part, weight), F.linear(part, weight), depth="network")


def test_small_layers_other_types_and_autocast_stay_torchs() -> None:
    small, weight = torch.randn(4, 8), torch.randn(3, 8)
    assert torch.equal(apply_linear(small, weight), F.linear(small, weight))
    x, large = torch.randn(4, 160), torch.randn(80, 160)
    assert torch.equal(apply_linear(x.double(), large.double()), F.linear(x.double(), large.double()))
    assert apply_linear(x.bfloat16(), large.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert apply_linear(x, large).dtype == torch.bfloat16


def test_gradients_still_flow() -> None:
    x, weight = torch.randn(4, 160, requires_grad=True), torch.randn(80, 160)
    (slope,) = torch.autograd.grad(apply_linear(x, weight).sum(), x)
    assert_close(slope, weight.sum(0).expand(4, -1))


def test_a_model_keeps_its_weights_and_names() -> None:
    layer, attention = nn.Linear(160, 128), nn.MultiheadAttention(128, 2)
    model = nn.ModuleList([layer, attention]).eval().requires_grad_(False)
    names, x = list(model.state_dict()), torch.randn(5, 160)
    before = layer(x)
    attended = attention(before, before, before)[0]
    replace_linear_layers(model)
    assert list(model.state_dict()) == names and type(layer) is not nn.Linear and isinstance(layer, nn.Linear)
    assert_close(layer(x), before, depth="network")
    assert_close(attention(before, before, before)[0], attended, depth="network")
