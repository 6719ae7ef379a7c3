"""The benchmark of copy-paste scenes on few small ones: it runs, and both ways give the same."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from annofree.training.augment.copy_paste import CopyPaste, CopyPasteSettings


@pytest.fixture(autouse=True)
def small(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SIZE", (60, 80))


def test_other_scenes_stop_it(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = benchmark.Material.of(benchmark.draw_pictures(3, tmp_path, 0), tmp_path, 0)
    how = CopyPasteSettings(crop=48)
    made, rng = CopyPaste(material.archive, material.masks, how), np.random.default_rng(1)
    draws = [made.draw(rng) for _ in range(4)]
    assert benchmark.agreement(material, how, draws) <= 2
    other = made.make_scene(rng)
    monkeypatch.setattr(benchmark, "obvious_scene", lambda *_: other)
    with pytest.raises(SystemExit, match="nothing was timed"):
        benchmark.agreement(material, how, draws)


@pytest.mark.parametrize("given", [True, False])
def test_it_prints_a_table_and_writes_its_numbers(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: bool
) -> None:
    (tmp_path / "photos").mkdir()
    benchmark.draw_pictures(4, tmp_path / "photos", 3)
    images = ["--images", str(tmp_path / "photos")] if given else ["--pictures", "4"]
    sizes = ["--scenes", "3", "--crop", "48", "--repeats", "2"]
    benchmark.main([*images, *sizes, "--json", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    assert "4 images; 3 scenes of 48 px" in printed and "ratio to obvious" in printed
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["ratios"].keys() == {"kept", "anew"}
    assert all(r["least"] <= r["median"] <= r["most"] and len(r["repeats"]) == 2 for r in record["scenes_a_second"].values())
