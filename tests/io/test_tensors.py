"""Weights that are no numbers are an error, not a model that finds nothing."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from annofree.detectors.checkpoint import read_state
from annofree.errors import InputError
from annofree.hub.cards import find_bundled
from annofree.io.tensors import read_checkpoint, refuse_nan


def test_weights_with_nan_are_refused_by_name(tmp_path: Path) -> None:
    state = load_file(find_bundled("tiny-detector") / "model.safetensors")
    refuse_nan(state, tmp_path)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} has NaN; fetch or train the model again"):
        read_state(tmp_path / "model.safetensors")


class Unknown(dict[str, Any]):
    """A class that nobody has who reads the file."""


def test_a_checkpoint_is_read_without_what_is_no_tensor(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    tensors = {
        "view": whole[1:3, ::2],
        "turned": whole.T,
        "half": whole.half(),
        "brain": whole.bfloat16(),
        "whole": torch.arange(3),
        "yes": torch.tensor([True, False]),
        "number": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "weight": torch.nn.Parameter(torch.ones(2), requires_grad=False),
    }
    metrics = defaultdict(float, {"best": 0.5})
    settings = {"config": Unknown(a=Unknown(b=1)), "step": 7, "metrics": metrics, "made": print}
    torch.save({"model": tensors, **settings}, tmp_path / "a.pth")
    held = read_checkpoint(tmp_path / "a.pth")
    assert held["model"].keys() == tensors.keys() and held["step"] == 7
    for name, value in tensors.items():
        assert held["model"][name].dtype == value.dtype and torch.equal(held["model"][name], value)
    assert held["config"] == held["metrics"] == {} and held["made"] is not print
    assert type(held["config"]) is not Unknown


def test_a_checkpoint_that_was_cut_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "a.pth")
    held = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(held[: len(held) // 2])
    with pytest.raises(InputError, match=r"expected a checkpoint of torch in .*a\.pth, but it cannot be read: .*; get it"):
        read_checkpoint(tmp_path / "a.pth")
