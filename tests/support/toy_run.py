"""A small training that a test runs in its own process or in others; also ``torchrun ... toy_run.py FOLDER STEPS``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from annofree.training.engine.distributed import DistributedContext, join_processes
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, TrainResult, train

BATCH = 4
NOISY = 0.2  # of a dropout, so that the generator's state matters


def toy(dropout: float = NOISY) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def draw(number: int) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(np.random.default_rng((7, number)).normal(size=6)).float()
    return x, (x[:3].sum() > 0).float()


def collate(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def losses_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
    logits = model(batch[0])[:, 0]
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, batch[1])
    return {"entropy": entropy, "size": 0.01 * (logits**2).mean()}


def run(
    folder: Path,
    steps: int = 12,
    *,
    model: nn.Module | None = None,
    watch: TrainCallbacks | None = None,
    ranks: DistributedContext | None = None,
    drawn: Callable[[int], Any] = draw,
    about: Mapping[str, Any] | None = None,
    **course: Any,
) -> TrainResult:
    model = model or toy()
    slow, fast = model[0], model[3]  # type: ignore[index]
    groups = [
        {"params": slow.parameters(), "lr": 1e-3, "name": "slow"},
        {"params": fast.parameters(), "lr": 1e-2, "name": "fast"},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    whole = TrainConfig(steps, **{"batch": BATCH, **course})
    watch = watch or TrainCallbacks(log_every=2, checkpoint_every=3)
    return train(model, optimizer, losses_of, drawn, whole, folder, collate=collate, watch=watch, ranks=ranks, about=about)


def main(folder: Path, steps: int, kill_at: int | None) -> None:
    """Train; the process ends itself after ``kill_at`` steps as the kernel would end it.  Also under torchrun."""

    def die(done: int, total: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    watch = TrainCallbacks(log_every=2, checkpoint_every=3, on_progress=die)
    with join_processes() as ranks:
        # a dropout draws other numbers for a half of a batch, so several processes go without
        model = toy(dropout=0.0 if ranks.count > 1 else NOISY)
        run(folder, steps, model=model, ranks=ranks, watch=watch)
        if ranks.first:
            torch.save(model.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
