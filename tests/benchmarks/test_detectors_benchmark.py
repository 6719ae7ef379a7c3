"""The benchmark of detectors on few small images: it runs, and says what it measured."""

import json
from pathlib import Path
from types import ModuleType

import pytest


def test_it_prints_a_table_and_writes_its_numbers(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--small", "--side", "64", "--batch", "1", "--objects", "2", "--repeats", "2"]
    benchmark.main([*sizes, "--json", str(tmp_path / "figures.json")])
    assert "clip-resnet, 64 x 85 px, 1 at once, cpu" in capsys.readouterr().out
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["ratios"].keys() == {"train", "use"}
    for work, ratio in record["ratios"].items():
        rates = [record["pictures_a_second"][f"{work} {name}"]["repeats"] for name in ("cascade", "torchvision")]
        assert ratio["least"] == pytest.approx(min(a / b for a, b in zip(*rates, strict=True))) and len(rates[0]) == 2
