from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def started(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The minutes of each stage that was started; the CLIP fails, all else ends well."""
    begun: dict[str, float] = {}

    def start(out: Path, stage: str, minutes: float, *how: Any) -> SimpleNamespace:
        begun[stage] = minutes
        return SimpleNamespace(poll=lambda: 0, returncode=int(stage == "clip"))

    monkeypatch.setattr(benchmark, "start", start)
    monkeypatch.setattr(benchmark.time, "sleep", lambda seconds: None)
    return begun


def test_what_follows_a_failed_stage_is_left_out_and_the_run_ends(
    benchmark: ModuleType, started: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = benchmark.run(tmp_path, list(benchmark.STAGES), 9.0, 1, "cpu", True)
    assert failed == 4 and set(started) == {"world", "clip", "sam", "dino"}
    assert "zutis is left out, as archive, clip-vit failed" in capsys.readouterr().out


def test_a_stage_that_was_stopped_goes_on_with_the_minutes_it_had(
    benchmark: ModuleType, started: dict[str, float], tmp_path: Path
) -> None:
    benchmark.run(tmp_path, ["sam"], 9.0, 1, "cpu", True)
    first = started["sam"]
    benchmark.run(tmp_path, ["sam"], 5.0, 1, "cpu", True)
    assert started["sam"] == first == pytest.approx(7.6, abs=0.1)


def test_unknown_stages_are_refused(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_tiny_models.py", "--out", "out", "--stages", "clip,clop"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "and unseen, got clop" in capsys.readouterr().err
