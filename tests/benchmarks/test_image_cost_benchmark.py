from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import pytest


def test_start_and_models_are_taken_away(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_once(asked: argparse.Namespace, limit: int, source: Path | None, out: Path) -> float:
        out.mkdir(parents=True)
        row = {"segmentation": 1, "category_id": 2, "score": 0.5 if source is None else 0.25}
        (out / "annotations.json").write_text(json.dumps({"annotations": [row] * limit}))
        return 9.0 + limit * (2.0 if source is None else 3.0)

    monkeypatch.setattr(benchmark, "run_once", run_once)
    benchmark.main(["images", "--few", "2", "--many", "6", "--beside", "src"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2.00 processor-seconds an image"
    assert said[1] == "3.00 beside, 1.50 times; 6 annotations, 0 with another mask or name, scores by 2.5e-01"
