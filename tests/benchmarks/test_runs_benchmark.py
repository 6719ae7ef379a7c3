"""The benchmarks of runs run over a few small images, and what they tell is measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import PIL.Image
import pytest


@pytest.mark.parametrize(
    ("part", "ways"),
    [
        ("speed", ["bare", "runner", "runner with overlays"]),
        ("decoding", ["loop", "runner"]),
        ("names", ["new run", "other names"]),
    ],
)
def test_ratios_are_of_what_was_timed(
    benchmark: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    ways: list[str],
) -> None:
    ticks = iter([0.0, 1.0, 2.0, 4.0, 5.0, 8.0])  # one second for the first way, two for the second, three for the third
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=ticks.__next__))
    written = tmp_path / "said.json"
    benchmark.main([part, "--small", "--method", "glance", "--json", str(written)])
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads(written.read_text(encoding="utf-8"))
    assert list(said["times_as_fast"]) == ways and said["base"] == ways[0]
    for took, way in enumerate(ways, 1):
        assert said["seconds"][way] == [took]
        assert said["times_as_fast"][way] == dict.fromkeys(("ratio", "least", "most"), round(1 / took, 4))


def test_memory_is_plotted(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    benchmark.main(["memory", "--small", "--images", "20", "--plot", str(tmp_path / "memory.png")])
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == 20 and 10 < said["megabytes_then"] < 10_000 and 0 <= said["growth_megabytes"] < 200
    with PIL.Image.open(tmp_path / "memory.png") as plot:
        assert plot.width > 400
