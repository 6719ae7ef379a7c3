"""Weights that are no numbers are an error, not a model that finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from annofree.detectors.checkpoint import read_state
from annofree.errors import InputError
from annofree.hub.cards import find_bundled
from annofree.io.tensors import refuse_nan


def test_weights_with_nan_are_refused_by_name(tmp_path: Path) -> None:
    state = load_file(find_bundled("tiny-detector") / "model.safetensors")
    refuse_nan(state, tmp_path)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} has NaN; fetch or train the model again"):
        read_state(tmp_path / "model.safetensors")
