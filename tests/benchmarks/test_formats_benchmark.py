"""The benchmark of the formats, small: what is lossless scores 100, what is not says so, and a run can be exported."""

import json
from pathlib import Path
from types import ModuleType

import pytest


def test_the_round_trip_of_the_bundled_scenes(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main(["--small", "--json", str(tmp_path / "f.json")])
    found = json.loads((tmp_path / "f.json").read_text())
    for name in ("coco", "coco-polygons", "yolo-seg", "labelme", "label-studio", "cvat"):
        assert found[name]["ap"] == 1.0 and found[name]["least_mask_iou"] == 1.0, name
    assert found["coco"]["losses"] == [] and found["yolo-det"]["of"] == "boxes" and found["yolo-det"]["ap"] > 0.99
    assert 0 < found["png"]["ap"] < 1 and found["png"]["losses"]
    printed = capsys.readouterr().out
    assert "coco             100.0  masks      1.000  nothing\n" in printed


def test_a_made_up_run_is_exported(benchmark: ModuleType, tmp_path: Path) -> None:
    benchmark.made_up_run(tmp_path / "run", 70)
    took = benchmark.exported(tmp_path / "run", "cvat", tmp_path / "cvat")
    assert took["peak_megabytes"] > 1
    report = json.loads((tmp_path / "cvat" / "fidelity.json").read_text())
    assert (report["pictures"], report["objects"], report["exact"]) == (70, 350, 350)
