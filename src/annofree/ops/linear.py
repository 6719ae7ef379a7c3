"""Linear layers through oneDNN, which uses the widest instructions of any processor; MKL does so on Intel's alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

__all__ = ["apply_linear", "replace_linear_layers"]

_LAYERS = (nn.Linear, NonDynamicallyQuantizableLinear)  # the latter is the last of torch's attention
_LEAST = 2**13  # weights; of smaller layers little time is spent, and they stay as they are


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (..., C) W' + b of a weight (D, C), as ``torch.nn.functional.linear`` up to rounding; without gradients.

    >>> apply_linear(torch.ones(2, 3), torch.ones(1, 3), torch.ones(1)).tolist()
    [[4.0], [4.0]]
    """
    if weight.numel() < _LEAST or not _is_plain(x, weight):
        return F.linear(x, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def replace_linear_layers(model: Any) -> None:
    """Let the linear layers of a frozen model go through oneDNN, in place; weights and their names stay what they are."""
    for layer in model.modules():
        if type(layer) in _LAYERS and layer.weight.numel() >= _LEAST:
            layer.__class__ = _WideLinear


class _WideLinear(nn.Linear):
    """A linear layer of a frozen model."""

    def forward(self, x: Tensor) -> Tensor:
        return apply_linear(x, self.weight, self.bias)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes these: float32 on a CPU, something in it, and nobody asks for gradients."""
    if not (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel()):
        return False
    if torch.is_autocast_enabled("cpu") or (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return False
    library: Any = torch.backends.mkldnn
    return bool(library.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
