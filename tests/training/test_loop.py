import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import loop
from annofree.training.tiny.loop import Budget, fit

BUDGET = Budget(samples=200, minutes=10_000, batch=2, lr=0.1, weight_decay=0.0, warmup=0.1)


class Slope(nn.Module):
    """A parameter whose gradient is always one, so that each AdamW step moves it by just the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(1, dtype=torch.double))
        self.course = [0.0]

    def loss(self) -> Tensor:
        self.course.append(float(self.at.detach()))
        return self.at.sum()

    @property
    def rates(self) -> list[float]:
        course = [*self.course[2:], float(self.at.detach())]
        return [before - after for before, after in zip(self.course[1:], course, strict=True)]


class Toy(nn.Module):
    """A small network and a fixed, full batch: its loss is a function of the parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.3
        self.x = torch.randn(16, 4, generator=generator)
        self.y = self.x[:, :1] * self.x[:, 1:2]

    def loss(self) -> Tensor:
        return F.mse_loss(self.layers(self.x), self.y)


def quiet(_: str) -> None:
    """Say nothing."""


def run(
    model: nn.Module,
    loss: Callable[[], Tensor],
    budget: Budget,
    folder: Path,
    every_minutes: float = 5.0,
) -> dict[str, float]:
    return fit(
        model, lambda progress: loss(), budget, folder, measure=lambda: {"exam": 0.25}, say=quiet, every_minutes=every_minutes
    )


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_ends_when_its_samples_are_seen(tmp_path: Path) -> None:
    slope = Slope()
    figures = run(slope, slope.loss, BUDGET, tmp_path)
    assert len(slope.rates) == 100
    assert figures["samples"] == 200 and figures["exam"] == 0.25


def test_a_run_that_does_not_divide_evenly_sees_the_last_batch_whole(tmp_path: Path) -> None:
    slope = Slope()
    assert run(slope, slope.loss, replace(BUDGET, samples=7), tmp_path)["samples"] == 8


def test_a_run_ends_when_its_minutes_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slope, now = Slope(), time.monotonic()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now + 600 * (len(slope.course) - 1)))
    figures = run(slope, slope.loss, replace(BUDGET, samples=10**9, minutes=45), tmp_path)  # ten minutes a step
    assert len(slope.rates) == 5 and figures["samples"] == 10 and figures["minutes"] == pytest.approx(50, abs=1)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(tmp_path: Path) -> None:
    slope = Slope()
    run(slope, slope.loss, BUDGET, tmp_path)
    expected = []
    for step in range(100):
        p = step / 100
        expected.append(0.1 * max(p, 1e-3) / 0.1 if p < 0.1 else 0.05 * (1 + math.cos(math.pi * (p - 0.1) / 0.9)))
    assert_close(slope.rates, expected, depth="network")  # AdamW adds 1e-8 to the divisor of each step
    assert max(slope.rates) == slope.rates[10]
    assert slope.rates[0] > 0 and slope.rates[-1] < 0.001


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms = []
    linear = nn.Linear(3, 1)

    def loss() -> Tensor:
        value: Tensor = 1000 * linear(torch.ones(1, 3)).sum()
        return value

    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> object:
        grads = [p.grad for p in linear.parameters() if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        run(linear, loss, replace(BUDGET, samples=6, clip=0.5), tmp_path)
    assert_close(norms, [0.5] * 3, dtype=torch.float32)


def test_matrices_decay_and_vectors_and_frozen_parameters_do_not(tmp_path: Path) -> None:
    linear, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    for module in (linear, frozen):
        nn.init.ones_(module.weight), nn.init.ones_(module.bias)
    model = nn.ModuleList([linear, frozen])

    def loss() -> Tensor:
        value: Tensor = 0 * linear(torch.zeros(1, 2)).sum() + 0 * linear.weight.sum()
        return value

    run(model, loss, replace(BUDGET, samples=20, weight_decay=0.5), tmp_path)
    assert (linear.weight < 0.99).all()
    assert (linear.bias == 1).all() and (frozen.weight == 1).all() and (frozen.bias == 1).all()


def test_what_is_logged_and_said(tmp_path: Path) -> None:
    slope = Slope()
    said: list[str] = []
    figures = fit(
        slope, lambda progress: slope.loss(), replace(BUDGET, samples=6), tmp_path / "new" / "folder",
        measure=lambda: {"exam": float(len(said))}, say=said.append, every_minutes=0.0,
    )  # fmt: skip
    lines = log_of(tmp_path / "new" / "folder")
    assert [line["samples"] for line in lines] == [2, 4, 6]
    assert [line["exam"] for line in lines] == [0, 1, 2]
    assert all(set(line) == {"samples", "minutes", "loss", "exam"} for line in lines)
    assert_close([line["loss"] for line in lines], slope.course[1:])
    assert figures == lines[-1]
    assert said[0].startswith(" 33%, ") and said[-1].startswith("100%, 0 min left: samples 6")


def test_between_log_lines_the_loss_is_a_mean(tmp_path: Path) -> None:
    slope = Slope()
    run(slope, slope.loss, BUDGET, tmp_path)
    (line,) = log_of(tmp_path)
    assert_close(line["loss"], sum(slope.course[1:]) / 100)


@pytest.mark.parametrize("after", [1, 7, 19])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    budget = replace(BUDGET, samples=40, lr=0.01, weight_decay=0.05)
    whole = Toy()
    run(whole, whole.loss, budget, tmp_path / "whole")

    stopped, steps = Toy(), 0

    def loss() -> Tensor:
        nonlocal steps
        if steps == after:
            raise KeyboardInterrupt
        steps += 1
        return stopped.loss()

    with pytest.raises(KeyboardInterrupt):
        run(stopped, loss, budget, tmp_path / "parts", every_minutes=0.0)
    resumed = Toy()
    for p in resumed.parameters():
        p.data.zero_()  # all that counts comes from the checkpoint
    figures = run(resumed, resumed.loss, budget, tmp_path / "parts")
    assert figures["samples"] == 40
    assert [line["samples"] for line in log_of(tmp_path / "parts")] == [*range(2, 2 * after + 1, 2), 40]
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert float(whole.loss().detach()) < float(Toy().loss().detach())


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    budget = replace(BUDGET, samples=10, lr=0.01, weight_decay=0.05)
    toy = Toy()
    first = run(toy, toy.loss, budget, tmp_path)
    again = Toy()
    second = run(again, again.loss, budget, tmp_path)
    for ours, theirs in zip(again.parameters(), toy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second["exam"] == first["exam"]


def test_minutes_of_earlier_sessions_count(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, toy.loss, replace(BUDGET, samples=10), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["seen"] == 10 and state["seconds"] >= 0
    torch.save(state | {"seconds": 3600.0, "seen": 4}, tmp_path / "checkpoint.pt")
    assert 60 <= run(toy, toy.loss, replace(BUDGET, samples=10**6, minutes=60), tmp_path)["minutes"] < 90


def test_the_loss_is_told_how_much_of_the_budget_is_spent(tmp_path: Path) -> None:
    slope = Slope()
    told: list[float] = []

    def loss(progress: float) -> Tensor:
        told.append(progress)
        return slope.loss()

    fit(slope, loss, replace(BUDGET, samples=8, batch=2), tmp_path, measure=dict, say=quiet)
    assert told == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.01)  # the clock counts, too


def test_a_finished_run_learns_no_more(tmp_path: Path) -> None:
    slope = Slope()
    run(slope, slope.loss, replace(BUDGET, samples=6), tmp_path)
    before = float(slope.at.detach())
    figures = run(slope, slope.loss, replace(BUDGET, samples=6), tmp_path)
    assert float(slope.at.detach()) == before and figures["samples"] == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.02}, "lr was 0.1, now 0.02"),
        ({"batch": 4}, "batch was 2, now 4"),
        ({"weight_decay": 0.5}, "weight_decay was 0.0, now 0.5"),
        ({"warmup": 0.2, "clip": 2.0}, "clip was 1.0, now 2.0; warmup was 0.1, now 0.2"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    slope = Slope()
    run(slope, slope.loss, replace(BUDGET, samples=6), tmp_path)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=rf"holds a run with other settings \({words}\); go on with those, or elsewhere"):
        run(slope, slope.loss, replace(BUDGET, samples=60, **change), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert run(slope, slope.loss, replace(BUDGET, samples=60), tmp_path)["samples"] == 60


def test_a_run_goes_on_with_what_it_was_told_of_itself_only(tmp_path: Path) -> None:
    def again(seed: int) -> None:
        slope = Slope()
        fit(
            slope, lambda _: slope.loss(), replace(BUDGET, samples=6), tmp_path,
            measure=dict, say=quiet, about={"seed": seed},
        )  # fmt: skip

    again(0)
    again(0)
    with pytest.raises(InputError, match="seed was 0, now 1"):
        again(1)


def drawn_run(folder: Path, stop_after: int | None) -> list[list[float]]:
    """What each step of a run of ten draws, with generators of three kinds; it is killed before the step ``stop_after``."""
    torch.manual_seed(7)
    slope, ours, theirs = Slope(), torch.Generator().manual_seed(7), np.random.default_rng(7)
    drawn: list[list[float]] = []

    def loss(_: float) -> Tensor:
        if len(drawn) == stop_after:
            raise KeyboardInterrupt
        drawn.append([float(torch.rand(())), float(torch.rand((), generator=ours)), float(theirs.random())])
        return slope.loss() * drawn[-1][0]

    try:
        fit(
            slope, loss, replace(BUDGET, samples=20), folder,
            measure=dict, say=quiet, every_minutes=0.0, generators=(ours, theirs),
        )  # fmt: skip
    except KeyboardInterrupt:
        return drawn
    return [*drawn, [float(slope.at.detach())]]


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_resumed_run_draws_what_an_undisturbed_one_draws(tmp_path: Path, after: int) -> None:
    whole = drawn_run(tmp_path / "whole", None)
    assert len(whole) == 11
    assert [*drawn_run(tmp_path / "parts", after), *drawn_run(tmp_path / "parts", None)] == whole


def test_a_checkpoint_of_another_device_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[object] = []
    load = torch.load

    def watched(*args: Any, **options: Any) -> Any:
        places.append(options.get("map_location"))
        return load(*args, **options)

    slope = Slope()
    run(slope, slope.loss, replace(BUDGET, samples=4), tmp_path)
    monkeypatch.setattr(torch, "load", watched)
    run(slope, slope.loss, replace(BUDGET, samples=8), tmp_path)
    assert places == ["cpu"]


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_text("no")
    slope = Slope()
    with pytest.raises(InputError, match="expected the checkpoint of a training at"):
        run(slope, slope.loss, BUDGET, tmp_path)
