"""A budget's course through the one loop: rates, decay, what is logged and told, and what a stopped run goes on with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from annofree.errors import InputError
from annofree.testing.tolerances import assert_close
from annofree.training.engine import state as engine_state
from annofree.training.engine.checkpoint import LOG, read_log
from annofree.training.tiny import budget as module
from annofree.training.tiny.budget import Budget, make_rng, summarize_effort, train_on_budget
from annofree.training.tiny.pool import Pool

BUDGET = Budget(samples=200, batch=2, lr=0.1, weight_decay=0.0, warmup=0.1)


class Slope(nn.Module):
    """A parameter whose gradient is always one, so that each AdamW step moves it by just the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(1, dtype=torch.double))
        self.course: list[float] = []

    def rates(self) -> list[float]:
        course = [*self.course, float(self.at.detach())]
        return [before - after for before, after in itertools.pairwise(course)]


def slope_losses(model: nn.Module, numbers: list[int]) -> Mapping[str, Tensor]:
    assert isinstance(model, Slope)
    model.course.append(float(model.at.detach()))
    return {"at": model.at.sum()}


def run(model: nn.Module, budget: Budget, folder: Path, losses: Any = slope_losses, **others: Any) -> dict[str, float]:
    return train_on_budget(model, losses, int, budget, folder, collate=list, **{"seed": 0, **others})


def curve(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "images/s")} for line in read_log(folder / LOG)]


def test_a_run_ends_when_its_samples_are_seen(tmp_path: Path) -> None:
    slope = Slope()
    figures = run(slope, BUDGET, tmp_path)
    assert len(slope.rates()) == 100 == BUDGET.steps
    assert figures["samples"] == 200 and figures["minutes"] >= 0


def test_a_run_that_does_not_divide_evenly_sees_the_last_batch_whole(tmp_path: Path) -> None:
    assert run(Slope(), replace(BUDGET, samples=7), tmp_path)["samples"] == 8


def test_the_learning_rate_rises_and_falls_along_a_cosine(tmp_path: Path) -> None:
    slope = Slope()
    run(slope, BUDGET, tmp_path)
    expected = [0.1 * (k + 1) / 10 for k in range(10)]
    expected += [0.05 * (1 + math.cos(math.pi * (k - 10) / 90)) for k in range(10, 100)]
    assert_close(slope.rates(), expected, depth="network")  # AdamW adds 1e-8 to the divisor of each step


def test_gradients_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    linear = nn.Linear(3, 1)
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> object:
        norms.append(float(torch.cat([p.grad.flatten() for p in linear.parameters() if p.grad is not None]).norm()))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    steep = {"steep": torch.ones(1, 3) * 1000}
    run(linear, replace(BUDGET, samples=6, clip=0.5), tmp_path, lambda m, _: {"steep": m(steep["steep"]).sum()})
    assert_close(norms, [0.5] * 3, dtype=torch.float32)


def test_matrices_decay_and_vectors_and_frozen_parameters_do_not(tmp_path: Path) -> None:
    linear, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    for module_ in (linear, frozen):
        nn.init.ones_(module_.weight), nn.init.ones_(module_.bias)

    def losses(model: nn.Module, numbers: list[int]) -> Mapping[str, Tensor]:
        return {"none": 0 * linear(torch.zeros(1, 2)).sum() + 0 * linear.weight.sum()}

    run(nn.ModuleList([linear, frozen]), replace(BUDGET, samples=20, weight_decay=0.5), tmp_path, losses)
    assert (linear.weight < 0.99).all()
    assert (linear.bias == 1).all() and (frozen.weight == 1).all() and (frozen.bias == 1).all()


def test_what_is_logged_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    figures = run(
        Slope(), replace(BUDGET, samples=6), tmp_path / "new",
        measure=lambda: {"exam": float(len(said))}, say=said.append, on_progress=lambda *at: seen.append(at),
    )  # fmt: skip
    lines = read_log(tmp_path / "new" / LOG)
    assert [line["step"] for line in lines] == [1, 2, 3] and [line["exam"] for line in lines] == [0, 1, 2]
    assert figures["loss"] == lines[-1]["loss"] == lines[-1]["at"]
    assert said[0].startswith("step 1 of 3: loss ") and said[-1].endswith("exam 2")
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert summarize_effort(figures) == {f"training {name}": figures[name] for name in ("samples", "minutes", "loss")}


def test_a_finished_run_learns_no_more(tmp_path: Path) -> None:
    slope, again = Slope(), Slope()
    first = run(slope, replace(BUDGET, samples=6), tmp_path)
    assert run(again, replace(BUDGET, samples=6), tmp_path)["loss"] == first["loss"]
    assert not again.course and torch.equal(again.at, slope.at)


def test_minutes_end_a_call_and_more_of_them_go_on_to_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, slope = Slope(), Slope()
    budget = replace(BUDGET, samples=40)
    run(whole, budget, tmp_path / "whole")
    now = 1000.0  # sums of whole seconds are exact
    ticking = SimpleNamespace(monotonic=lambda: now + 60 * sum(map(len, (slope.course,))))  # a minute a step
    monkeypatch.setattr(engine_state, "time", ticking)
    figures = run(slope, replace(budget, minutes=7), tmp_path / "parts")
    assert figures["samples"] == 14 and figures["minutes"] == 7
    kept = (tmp_path / "parts" / "checkpoint.pt").read_bytes()
    run(slope, replace(budget, minutes=7), tmp_path / "parts")  # those of the earlier call count
    assert (tmp_path / "parts" / "checkpoint.pt").read_bytes() == kept
    assert run(slope, budget, tmp_path / "parts")["samples"] == 40
    assert torch.equal(slope.at, whole.at)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.02}, "lr was 0.1, now 0.02"),
        ({"batch": 1, "samples": 3}, "batch was 2, now 1"),
        ({"weight_decay": 0.5}, "weight_decay was 0.0, now 0.5"),
        ({"samples": 60}, "steps was 3, now 30"),
        ({"clip": 2.0}, "clip was 1.0, now 2.0"),
    ],
)
def test_a_folder_of_a_run_with_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run(Slope(), replace(BUDGET, samples=6), tmp_path)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=rf"holds a run with other settings \(.*{words}.*\); go on with those, or elsewhere"):
        run(Slope(), replace(BUDGET, **{"samples": 6, **change}), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_another_seed_or_other_pictures_are_refused_too(tmp_path: Path) -> None:
    budget = replace(BUDGET, samples=6)
    run(Slope(), budget, tmp_path, about={"pool": 4})
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(Slope(), budget, tmp_path, about={"pool": 4}, seed=1)
    with pytest.raises(InputError, match="pool was 4, now 8"):
        run(Slope(), budget, tmp_path, about={"pool": 8})


def killed_after(step: int) -> Any:
    """Follows the progress of a run, and ends it without a chance to keep anything once it has done so many steps."""

    def on_progress(done: int, total: int) -> None:
        if done == step:
            raise RuntimeError("killed")

    return on_progress


def test_a_checkpoint_of_another_device_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, whole, resumed = replace(BUDGET, samples=8), Slope(), Slope()
    run(whole, budget, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")  # as a GPU's tensors are written
        run(Slope(), budget, tmp_path, on_progress=killed_after(2))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert run(resumed, budget, tmp_path)["samples"] == 8
    assert len(resumed.course) == 2 and torch.equal(resumed.at, whole.at)


def test_what_is_drawn_follows_from_what_and_which_it_is() -> None:
    keys = [("picture", 0, 1), ("example", 0, 1), ("step", 0, 1), ("picture", 1, 1), ("picture", 0, 2), ("picture", 1, 0)]
    drawn = [float(make_rng(*key).random()) for key in keys]  # type: ignore[arg-type]
    assert len(set(drawn)) == len(drawn)
    assert float(make_rng("step", 0, 1).random()) == drawn[2]
    assert module.Budget(samples=10, batch=4, lr=1.0).compute_progress(2) == 2 / 3


class TestPool:
    def test_a_step_sees_the_same_whatever_came_before(self) -> None:
        asked: list[int] = []

        def drawn(numbers: range) -> list[int]:
            asked.extend(numbers)
            return [10 * n for n in numbers]

        pools: list[Pool[int]] = [Pool(drawn, size=10, fresh=3, group=4) for _ in range(2)]
        pool, late = pools
        for step in range(9):
            assert [pool.draw_thing(n) for n in pool.find_window(step)] == [10 * n for n in pool.find_window(step)]
        count = len(asked)
        assert count == len(set(asked)), "nothing is drawn twice while it is in use"
        drawn_late, drawn_on = ([p.pick(8, make_rng("example", 0, k)) for k in range(20)] for p in (late, pool))
        assert drawn_late == drawn_on

    def test_it_moves_on_in_groups_and_keeps_its_size(self) -> None:
        pool: Pool[int] = Pool(lambda numbers: list(numbers), size=6, fresh=1, group=4)
        assert [pool.find_window(step).start for step in (0, 3, 4, 7, 8)] == [0, 0, 4, 4, 8]
        assert len(pool.find_window(5)) == 6
        assert Pool(lambda numbers: list(numbers), size=2, fresh=1, group=64).find_window(1) == range(2)

    def test_it_tells_how_far_it_is_filled(self) -> None:
        said: list[str] = []
        Pool(lambda numbers: list(numbers), size=10, fresh=1).fill(said.append, "scenes", every=4)
        assert said == ["rendered 4 of 10 scenes", "rendered 8 of 10 scenes", "rendered 10 of 10 scenes"]


def test_a_paced_run_lets_its_rate_fall_with_the_time_and_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr(engine_state, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    model = Slope()
    figures = run(model, replace(BUDGET, minutes=1.0, paced=True), tmp_path)
    assert figures["minutes"] >= 1.0 and figures["samples"] < 2 * BUDGET.samples, "it ends with the minutes"
    rates = model.rates()
    assert max(rates) == pytest.approx(BUDGET.lr, rel=0.05) and rates[-1] < 0.05 * BUDGET.lr
    top = rates.index(max(rates))
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_a_run_by_time_needs_minutes() -> None:
    with pytest.raises(InputError, match="expected minutes for a learning rate that falls with them, got none; pass --minutes"):
        Budget(samples=2, batch=1, lr=1.0, paced=True)
