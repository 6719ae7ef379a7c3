"""The benchmark of CLIP-DIY with a CLIP too small to time: it runs, and both ways give the same."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from annofree.testing.tolerances import PIXELS


def test_both_ways_give_the_same(benchmark: ModuleType) -> None:
    clip, images = benchmark.RandomClip(tiny=True, device="cpu", seed=1), benchmark.pictures(2, seed=1)
    same = benchmark.agreement(benchmark.our_method(clip), clip, images, ["cat", "dog"])
    assert same.greatest_difference < 3e-4 and same.equal_pixels >= 1 - PIXELS


def test_another_map_stops_it(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, images = benchmark.RandomClip(tiny=True, device="cpu"), benchmark.pictures(1, seed=0)
    monkeypatch.setattr(benchmark, "obvious_maps", lambda *_: torch.zeros(3, 256, 256))
    with pytest.raises(SystemExit, match="nothing was timed"):
        benchmark.agreement(benchmark.our_method(clip), clip, images, ["cat", "dog"])


def test_bfloat16_is_near(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, images = benchmark.RandomClip(tiny=True, device="cpu"), benchmark.pictures(1, seed=0)
    assert clip.halved().tower.conv1.weight.dtype == torch.bfloat16 and clip.tower.conv1.weight.dtype == torch.float32
    assert 0.99 < benchmark.half_agreement(clip, images) < 1.0 - 1e-7
    monkeypatch.setattr(benchmark.RandomClip, "halved", lambda self: benchmark.RandomClip(tiny=True, device="cpu", seed=1))
    with pytest.raises(SystemExit, match=r"bfloat16 near the exact ones"):
        benchmark.half_agreement(clip, images)


def test_it_prints_a_table_and_writes_its_numbers(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main(["--tiny", "--batch", "2", "--classes", "3", "--repeats", "2", "--json", str(tmp_path / "clip_diy.json")])
    printed = capsys.readouterr().out
    assert "obvious / ours" in printed and "second class list, words never read" in printed
    record = json.loads((tmp_path / "clip_diy.json").read_text())
    assert record["ratios"].keys() == {"batch", "half", "second", "unread"}
    assert all(t["least"] <= t["median"] <= t["most"] and len(t["repeats"]) == 2 for t in record["seconds"].values())
