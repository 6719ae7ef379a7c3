"""Trainings that are stopped and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annofree.training.engine.checkpoint import read_log

__all__ = ["curve", "quiet", "train_in_two"]


class StoppedError(Exception):
    """As a kill, but in this process."""


def quiet(text: str) -> None:
    """Say nothing."""


def curve(out: Path) -> list[dict[str, float]]:
    """Return what a training logged, but for how long it took."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "images/s")} for line in read_log(out / "log.jsonl")]


def train_in_two(train: Callable[..., object], recipe: Any, out: Path, step: int = 5) -> None:
    """Stop a training after some steps, where it has curves to look at and no card, and go on with it to its end."""

    def stop(done: int, total: int) -> None:
        if done == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, on_progress=stop, say=quiet)
    assert (out / "curves.png").exists() and not (out / "card.json").exists()
    train(recipe, say=quiet)
