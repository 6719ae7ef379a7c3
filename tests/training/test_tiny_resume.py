"""A tiny training that was killed ends as one that was not: the same curve, and weights of the same bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.drawing import drawing

from annofree.errors import InputError
from annofree.training.engine.checkpoint import LOG, read_log
from annofree.training.tiny import budget as budget_module
from annofree.training.tiny import clip_vit, dino, found_head, sam
from annofree.training.tiny.budget import Budget
from annofree.training.tiny.clip_vit import fit_tiny_clip_vit
from annofree.training.tiny.dino import build_model, fit_tiny_dino, write_tiny_dino
from annofree.training.tiny.found_head import fit_found
from annofree.training.tiny.sam import fit_tiny_sam

pytestmark = [pytest.mark.usefixtures("one_thread"), drawing]

STEPS, BATCH = 4, 2
BUDGET = Budget(samples=STEPS * BATCH, batch=BATCH, lr=1e-3)
TIMED = ("seconds", "images/s")
Train = Callable[..., Any]


@pytest.fixture(params=["sam", "dino", "clip-vit", "found"])
def train(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A training of four steps, with a checkpoint after the second, that is quick to examine."""
    monkeypatch.setattr(budget_module, "_LINES", 2)
    quick: dict[str, Any] = {"say": lambda text: None}
    if request.param == "sam":
        monkeypatch.setattr(sam, "evaluate_sam", lambda *_: {})
        return functools.partial(fit_tiny_sam, budget=BUDGET, pool_size=3, exam_size=2, **quick)
    if request.param == "clip-vit":
        monkeypatch.setattr(clip_vit, "find_best_path", lambda *_: "tokens")
        monkeypatch.setattr(clip_vit, "finish_card", lambda *_: {})
        return functools.partial(fit_tiny_clip_vit, budget=BUDGET, pool_size=6, exam_size=2, calibration_size=1, **quick)
    monkeypatch.setattr(dino, "evaluate_dino", lambda *_: {})
    if request.param == "dino":
        monkeypatch.setattr(dino, "_VIEW", 32)
        return functools.partial(fit_tiny_dino, budget=BUDGET, pool_size=3, **quick)
    monkeypatch.setattr(dino, "USE", dino.USE | {"side": 64})
    monkeypatch.setattr(found_head, "evaluate_found", lambda *_, **__: {})
    write_tiny_dino(build_model(1), {}, tmp_path / "dino")
    return functools.partial(fit_found, budget=BUDGET, dino=tmp_path / "dino", control=False, **quick)


def test_killed_and_called_again_it_ends_as_if_it_had_not_been(train: Train, tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done == 3:  # one step more than the checkpoint knows of
            raise RuntimeError("killed")

    train(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "torn", on_progress=kill)
    assert torch.load(tmp_path / "torn" / "checkpoint.pt", weights_only=True)["done"] == 2
    assert not list((tmp_path / "torn").glob("*.safetensors"))
    torch.manual_seed(123)  # what the caller's generator is at does not matter
    train(tmp_path / "torn")
    whole, torn = (
        [{k: v for k, v in line.items() if k not in TIMED} for line in read_log(tmp_path / name / LOG)]
        for name in ("whole", "torn")
    )
    assert torn == whole and [line["step"] for line in whole] == [2, 4]
    (weights,) = (path.name for path in (tmp_path / "whole").glob("*.safetensors"))
    assert (tmp_path / "torn" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    said: list[str] = []
    with pytest.raises(InputError, match=r"seed was 0, now 1\); go on with those, or elsewhere"):
        train(tmp_path / "torn", seed=1, say=said.append)
    assert not said, "refused before anything is rendered"
