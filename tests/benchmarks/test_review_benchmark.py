"""The benchmark of the review at a small size, on the fakes: it measures, keeps answers, and draws."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec
from annofree.methods.zip import Zip
from annofree.structures import Detections
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes


def test_it_measures_keeps_and_draws(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = CocoFile.with_categories(dict(enumerate(NAMES, 1)))
    for k, scene in enumerate(draw_paper_scenes()):
        PIL.Image.fromarray(scene.image.pixels).save(tmp_path / f"{k}.png")
        ids = [NAMES.index(name) for name in scene.names]
        real = Detections.from_masks(scene.masks, ids, [1.0] * len(ids), NAMES)
        truth.add_annotations(real.to_coco(truth.add_image(f"{k}.png", scene.image.size)))
    truth.write(tmp_path / "truth.json")
    asked: list[str] = []

    def build(spec: MethodSpec) -> Zip:
        asked.append(spec.method)
        return Zip(FakeClip(), FakeSam(), "default")

    monkeypatch.setattr(MethodSpec, "build", build)
    places = [
        "--truth",
        tmp_path / "truth.json",
        "--images",
        tmp_path,
        "--cache",
        tmp_path / "kept",
        "--json",
        tmp_path / "f.json",
    ]
    call = [str(a) for a in (*places, "--views", "flip", "--others", "sam_clip", "--samples", 20)]
    benchmark.main([*call, "--plot", str(tmp_path / "curves.png")])
    figures = json.loads((tmp_path / "f.json").read_text())["0.0"]
    assert asked == ["zip", "zip", "sam_clip"] and figures["pictures"] == 8
    second = {"flip", "flip, joint", "sam_clip", "sam_clip, joint"}
    assert set(figures["risks"]) == {"score", "margin", "rivals", "fragments", "overlap", "crowding", "doubt"} | second
    assert all(figures["oracle"] - 1e-9 <= row["aurc"] <= 1 for row in figures["risks"].values())
    with PIL.Image.open(tmp_path / "curves.png") as drawn:
        assert np.asarray(drawn).std() > 5
    kept = tmp_path / "kept" / "plain.jsonl"
    kept.write_text(kept.read_text()[:-30])  # torn
    benchmark.main(call)
    assert asked == ["zip", "zip", "sam_clip", "zip"] and json.loads((tmp_path / "f.json").read_text())["0.0"] == figures
