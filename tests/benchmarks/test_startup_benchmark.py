"""The benchmark of starting: every call is timed, and its modules are counted; how many seconds it took is no matter here."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest


def test_every_call_is_timed_and_its_modules_counted(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main(["--small", "--json", str(tmp_path / "said.json")])
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert said["repeats"] == 1 and list(said["calls"]) == list(benchmark.CALLS)
    for of_call in said["calls"].values():
        for kind in ("processor_seconds", "wall_seconds"):
            assert 0 <= of_call[kind]["least"] <= of_call[kind]["median"] <= of_call[kind]["most"]
        assert of_call["wall_seconds"]["least"] > 0 and of_call["modules"] > 10 and of_call["heavy"] == []
    counts = [said["calls"][name]["modules"] for name in ("nothing", "import annofree", "annofree --help")]
    assert counts == sorted(counts) and len(set(counts)) == 3


def test_heavy_modules_are_named(benchmark: ModuleType) -> None:
    loaded = benchmark.modules("import numpy", [])
    assert [name for name in benchmark.HEAVY if name in loaded] == ["numpy"]
