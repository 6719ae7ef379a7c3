import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.toy_run import draw, run, toy
from tests.support.toy_run import main as train_toy
from tests.support.two_processes import assert_same_curves
from torch import Tensor, nn

from annofree.errors import InputError, MissingError
from annofree.testing.tolerances import assert_close
from annofree.training.engine.checkpoint import LOG, read_log
from annofree.training.engine.distributed import DistributedContext
from annofree.training.engine.loop import TrainCallbacks, TrainConfig, train
from annofree.training.engine.lr_schedules import Cosine, Poly, Stairs

pytestmark = pytest.mark.usefixtures("one_thread")

TIMED = ("seconds", "images/s")


def curve(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_log(folder / LOG)]


class KilledError(Exception):
    pass


def drawing_until(step: int):  # type: ignore[no-untyped-def]
    """Draw images until a step's are asked for: the run then ends without a chance to keep anything."""

    def drawn(number: int):  # type: ignore[no-untyped-def]
        if number >= 4 * step:
            raise KilledError
        return draw(number)

    return drawn


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    trained = run(tmp_path, 180, watch=TrainCallbacks(log_every=30), schedule=Cosine())
    lines = read_log(tmp_path / LOG)
    assert [line["step"] for line in lines] == [30, 60, 90, 120, 150, 180]
    assert trained.figures == lines[-1]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    for line in lines:
        assert_close(line["loss"], line["entropy"] + line["size"])
        assert line["images/s"] > 0
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


@pytest.mark.parametrize(("step", "ema"), [*((step, None) for step in range(12)), (4, 0.9), (7, 0.9)])
def test_killed_at_any_step_it_goes_on_to_the_same_curve(tmp_path: Path, step: int, ema: float | None) -> None:
    whole, torn = toy(), toy()
    averaged = run(tmp_path / "whole", model=whole, ema=ema).averaged
    with pytest.raises(KilledError):
        run(tmp_path / "torn", model=toy(), drawn=drawing_until(step), ema=ema)
    again = run(tmp_path / "torn", model=torn, ema=ema).averaged
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")
    for a, b in zip(whole.parameters(), torn.parameters(), strict=True):
        assert torch.equal(a, b)
    if ema:
        assert averaged is not None and again is not None
        moved = [torch.equal(a, b) for a, b in zip(averaged.parameters(), again.parameters(), strict=True)]
        assert all(moved)
        assert not torch.equal(next(averaged.parameters()), next(whole.parameters()))


def forked(folder: Path, steps: int, kill_at: int | None = None, **environment: object) -> multiprocessing.Process:
    """Start a training in a process of its own."""

    def work() -> None:
        os.environ.update({k: str(v) for k, v in environment.items()})
        train_toy(folder, steps, kill_at)

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process  # type: ignore[return-value]


def test_sigkill_loses_nothing(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    process = forked(tmp_path / "torn", 12, kill_at=8)
    process.join(600)  # a bound for what hangs
    assert process.exitcode == -signal.SIGKILL
    assert [line["step"] for line in curve(tmp_path / "torn")] == [2, 4, 6, 8]  # two more than the checkpoint knows of
    run(tmp_path / "torn")
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")


def test_two_processes_learn_from_halves_what_one_learns_from_the_whole(tmp_path: Path) -> None:
    alone = toy(dropout=0.0)
    run(tmp_path / "alone", 6, model=alone)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    both = [forked(tmp_path / "two", 6, RANK=rank, LOCAL_RANK=rank, **meeting) for rank in (0, 1)]
    for process in both:
        process.join(600)
    assert [process.exitcode for process in both] == [0, 0]
    ours, theirs = curve(tmp_path / "alone"), curve(tmp_path / "two")
    assert [line["step"] for line in theirs] == [2, 4, 6]
    assert_same_curves(theirs, ours)
    weights = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    for name, value in alone.state_dict().items():
        assert_close(weights[name], value, depth="network")


def test_ctrl_c_finishes_the_step_and_keeps_it(tmp_path: Path) -> None:
    run(tmp_path / "whole")

    before = signal.getsignal(signal.SIGINT)

    def press(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn", watch=TrainCallbacks(log_every=2, checkpoint_every=100, on_progress=press))
    state = torch.load(tmp_path / "torn" / "checkpoint.pt", weights_only=True)
    assert state["done"] == 5
    assert len(state["losses"]) == 1  # of step 5, which no line tells of yet
    run(tmp_path / "torn")
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def press_twice(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, watch=TrainCallbacks(checkpoint_every=100, on_progress=press_twice))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_thread_trains_too(tmp_path: Path) -> None:
    thread = threading.Thread(target=run, args=(tmp_path, 2))
    thread.start()
    thread.join()
    assert [line["step"] for line in curve(tmp_path)] == [2]


def test_a_finished_run_asked_again_does_nothing(tmp_path: Path) -> None:
    first = run(tmp_path)
    model = toy()
    assert run(tmp_path, model=model, drawn=drawing_until(0)) == first
    assert torch.equal(next(model.parameters()), torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]["0.weight"])


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, 3, about={"crop": 384, "names": ("dog", "cat")})
    run(tmp_path, 3, about={"crop": 384, "names": ("dog", "cat")})
    with pytest.raises(InputError, match=r"crop was 384, now 256\); go on"):
        run(tmp_path, 3, about={"crop": 256, "names": ("dog", "cat")})
    with pytest.raises(InputError, match=r"seed was 0, now 1; steps was 3, now 4"):
        run(tmp_path, 4, about={"crop": 384, "names": ("dog", "cat")}, seed=1)
    with pytest.raises(InputError, match=r'"kind": "Poly".*now .*"kind": "Cosine"'):
        run(tmp_path, 3, about={"crop": 384, "names": ("dog", "cat")}, schedule=Cosine())


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not one")
    with pytest.raises(InputError, match=r"expected the checkpoint of a training at .*checkpoint\.pt"):
        run(tmp_path)


def test_a_torn_line_and_lines_without_a_checkpoint_are_cut_off(tmp_path: Path) -> None:
    run(tmp_path / "whole", 4)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / LOG).write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "lo')
    run(tmp_path / "torn", 4)
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one processor
def test_workers_draw_the_same_pictures(tmp_path: Path) -> None:
    run(tmp_path / "alone", 6)
    run(tmp_path / "helped", 6, watch=TrainCallbacks(log_every=2, workers=2))
    assert curve(tmp_path / "helped") == curve(tmp_path / "alone")


def test_groups_follow_the_schedule_from_their_own_rates(tmp_path: Path) -> None:
    run(tmp_path, 10, watch=TrainCallbacks(log_every=1), schedule=Poly(power=0.9, floor=5e-4))
    lines = read_log(tmp_path / LOG)
    for step, line in enumerate(lines):
        assert_close(line["lr slow"], max(1e-3 * (1 - step / 10) ** 0.9, 5e-4))
        assert_close(line["lr fast"], max(1e-2 * (1 - step / 10) ** 0.9, 5e-4))
    assert lines[-1]["lr slow"] == 5e-4 < lines[-1]["lr fast"]


def test_stairs_rise_and_fall() -> None:
    schedule = Stairs(at=(6, 8), factor=0.1, warmup=2)
    assert [round(schedule(1.0, step, 10), 4) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]


def test_clipping_bounds_the_whole_gradient(tmp_path: Path) -> None:
    weight = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(weight.weight)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    course = TrainConfig(1, 1, schedule=Stairs(at=()), clip=0.5)
    steep = torch.tensor([[3000.0, 4000.0]])
    train(weight, optimizer, lambda m, batch: {"loss": m(steep).sum()}, draw, course, tmp_path)
    assert_close(weight.weight, torch.tensor([[-0.3, -0.4]]))


def test_the_average_is_the_exponential_one(tmp_path: Path) -> None:
    model = toy()
    states: list[Tensor] = []
    watch = TrainCallbacks(on_progress=lambda done, total: states.append(next(model.parameters()).detach().clone()))
    averaged = run(tmp_path, 4, model=model, watch=watch, ema=0.75).averaged
    expected = states[1]  # after the first step; the zeroth is where it starts
    for state in states[2:]:
        expected = 0.75 * expected + 0.25 * state
    assert averaged is not None
    assert_close(next(averaged.parameters()), expected)


def test_bf16_computes_in_half_and_keeps_weights_in_full(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    model = toy()
    model.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    run(tmp_path, 2, model=model, bf16=True)
    assert seen == [torch.bfloat16] * 2
    assert next(model.parameters()).dtype == torch.float32


def test_samples_are_drawn_in_evaluation_mode_and_training_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []
    model = toy()
    watch = TrainCallbacks(sample_every=2, on_sample=lambda step, m: seen.append((step, m.training)))
    run(tmp_path / "watched", 4, model=model, watch=watch)
    assert seen == [(2, False), (4, False)]
    assert model.training
    run(tmp_path / "plain", 4, watch=TrainCallbacks())
    assert curve(tmp_path / "watched") == curve(tmp_path / "plain")


def test_figures_are_measured_for_each_line_and_lines_are_told(tmp_path: Path) -> None:
    seen: list[bool] = []
    told: list[Mapping[str, float]] = []

    def measure(model: nn.Module) -> dict[str, float]:
        seen.append(model.training or torch.is_grad_enabled())
        return {"size": float(next(model.parameters()).norm())}

    model = toy()
    trained = run(tmp_path / "a", 4, model=model, watch=TrainCallbacks(log_every=2, measure=measure, on_log=told.append))
    assert seen == [False, False] and model.training
    assert told == read_log(tmp_path / "a" / LOG) and [line["step"] for line in told] == [2, 4]
    assert trained.figures["size"] == told[-1]["size"] == float(next(model.parameters()).detach().norm())
    assert trained.done == 4 and trained.seconds > 0
    run(tmp_path / "b", 4, watch=TrainCallbacks(log_every=2))
    assert [line["loss"] for line in curve(tmp_path / "b")] == [line["loss"] for line in told]


def test_when_its_minutes_are_over_a_call_keeps_all_and_ends(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    first = run(tmp_path / "parts", watch=TrainCallbacks(log_every=2, checkpoint_every=100, minutes=1e-9))
    assert first.done == 0 and first.figures == {} and not (tmp_path / "parts" / "checkpoint.pt").exists()
    course: dict[str, Any] = {"log_every": 2, "checkpoint_every": 100}
    with pytest.MonkeyPatch.context() as patch:
        steps = iter([0.0, *(60.0 * n for n in range(1, 1000))])
        patch.setattr("annofree.training.engine.state.time", types.SimpleNamespace(monotonic=lambda: next(steps)))
        part = run(tmp_path / "parts", watch=TrainCallbacks(**course, minutes=6))
    assert 0 < part.done < 12
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["done"] == part.done
    run(tmp_path / "parts", watch=TrainCallbacks(**course))
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_the_callers_generator_is_left_alone(tmp_path: Path) -> None:
    model = toy()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path, 2, model=model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_kept(tmp_path: Path) -> None:
    def poisoned(number: int) -> tuple[Tensor, Tensor]:
        x, y = draw(number)
        return (x * torch.nan, y) if number == 4 * 7 else (x, y)

    with pytest.raises(InputError, match="NaN or infinite by step 8"):
        run(tmp_path, drawn=poisoned)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["done"] == 6


def test_a_batch_has_to_share_evenly() -> None:
    with pytest.raises(InputError, match="3 processes can share evenly, got 8"):
        DistributedContext(0, 3).local_slice(8)
    with pytest.raises(InputError, match="at least one step"):
        TrainConfig(0, 4)


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingError, match="pip install tensorboard"):
        run(tmp_path, watch=TrainCallbacks(tensorboard=True))


def test_tensorboard_gets_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, float, int]] = []
    opened: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            opened.append((folder, purge_step))

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            calls.append((tag, scalar_value, global_step))

        def close(self) -> None:
            opened.append(("closed", 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    run(tmp_path, 4, watch=TrainCallbacks(log_every=2, tensorboard=True))
    assert opened == [(str(tmp_path), 1), ("closed", 0)]
    lines = [json.loads(text) for text in (tmp_path / LOG).read_text().splitlines()]
    assert calls == [(k, v, line["step"]) for line in lines for k, v in line.items() if k != "step"]
