"""The benchmark of presence: its ranking is scikit-learn's average precision, and all of it runs on fakes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from annofree.formats.coco import CocoFile
from annofree.methods.zip import Zip
from annofree.testing.fakes import FakeClip, FakeSam


def test_ranking_is_average_precision_and_what_a_gate_lets_through(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    presence, there = rng.random((30, 5)), rng.random((30, 5)) < 0.3
    found = benchmark.ranking(torch.from_numpy(presence), torch.from_numpy(there), 0.5)
    kept = presence >= 0.5
    # figures have two digits after the point
    assert found["average precision"] == pytest.approx(100 * average_precision_score(there.ravel(), presence.ravel()), abs=0.01)
    assert found["recall"] == pytest.approx(100 * (kept & there).sum() / there.sum(), abs=0.01)
    assert found["precision"] == pytest.approx(100 * (kept & there).sum() / kept.sum(), abs=0.01)
    assert found["kept an image"] == pytest.approx(kept.sum(1).mean(), abs=0.01)


def test_which_names_are_in_which_pictures(benchmark: ModuleType) -> None:
    rows = [{"image_id": 8, "category_id": 2}, {"image_id": 8, "category_id": 2}, {"image_id": 9, "category_id": 1}]
    truth = CocoFile([{"id": 9}, {"id": 8}], [{"id": 1}, {"id": 2}], rows)
    assert benchmark.truth_of(truth).tolist() == [[True, False], [False, True]]


def test_all_of_it_runs_and_is_written(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "load", lambda *_, **__: Zip(FakeClip(), FakeSam()))
    benchmark.main(["--limit", "25", "--ask", "zip", "--json", str(tmp_path / "said.json")])
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert set(said) == {"fixed", "folder", "levels of other images, average precision", "zip, fixed", "zip, folder"}
    assert said["zip, fixed"]["instances"] >= 0 and "average precision" in capsys.readouterr().out
