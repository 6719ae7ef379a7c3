"""How a training is shown, and what is printed at its end; of several processes the first one speaks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from annofree.apps.cli.progress import show_progress
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["print_trained", "show_training"]


@contextmanager
def show_training(quiet: bool, first_stage: str = "steps") -> Iterator[Callbacks]:
    """Give callbacks that show how far a training is."""
    with show_progress(first_stage, quiet or not _is_first()) as show:
        yield show.callbacks


def print_trained(model: TrainedModel, evaluated_on: str = "", digits: int = 4) -> None:
    """Print where the card is, and the figures of the training or, if it was evaluated, of that."""
    if _is_first():
        figures = ", ".join(f"{name} {value:.{digits}g}" for name, value in model.figures.items())
        print(f"{model.card}{f' ({evaluated_on})' if evaluated_on else ''}: {figures}")


def _is_first() -> bool:
    """Whether this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
