"""The benchmark of Zip, on images too small to time: it runs, and both ways find the same."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.mark.parametrize("seed", range(3))
def test_both_ways_find_the_same_instances(benchmark: ModuleType, seed: int) -> None:
    same = benchmark.agreement(benchmark.made_up_scene(40, 32, 4, seed))
    assert abs(same.our_iterations - same.obvious_iterations) <= 1 and same.obvious_iterations > 3
    assert same.fragments > 20 and same.instances > 0


def test_other_clusters_stop_it(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = benchmark.made_up_scene(16, 8, 1, 0)
    clusters = benchmark.obvious_clusters(scene)
    clusters[0] += 1
    monkeypatch.setattr(benchmark, "obvious_clusters", lambda scene: clusters)
    with pytest.raises(SystemExit, match="got 16 of 256 cells"):
        benchmark.agreement(scene)


def test_other_instances_stop_it(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "compute_obvious_boxes", lambda instances, size: torch.zeros(1, 4).numpy())
    with pytest.raises(SystemExit, match="for class 0"):
        benchmark.agreement(benchmark.made_up_scene(16, 8, 1, 0))


def test_it_prints_a_table_and_writes_its_numbers(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--side", "16", "--channels", "8", "--classes", "3", "--measured", "2", "--repeats", "2"]
    benchmark.main([*sizes, "--json", str(tmp_path / "zip.json")])
    printed = capsys.readouterr().out
    assert "obvious / ours, 3 classes" in printed and "measured on 2 classes and scaled to 3" in printed
    record = json.loads((tmp_path / "zip.json").read_text())
    assert record["ratios"].keys() == {"one", "all", "growth"}
    times = record["seconds"]
    assert times["obvious_all"]["median"] == pytest.approx(1.5 * times["obvious_measured"]["median"])
    assert all(t["least"] <= t["median"] <= t["most"] and len(t["repeats"]) == 2 for t in times.values())
