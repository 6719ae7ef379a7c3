"""The true-size run with towers too narrow to matter: its files are read, the command runs, the numbers are its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from annofree.features.sam import Sam
from annofree.hub.cards import list_known_cards
from annofree.structures import Image

SPEC = "openai-rn50+openai-vit-b-16+sam-b"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Picture.fromarray(small).resize((160, 120)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_command_runs_and_its_numbers_are_told(
    benchmark: ModuleType, tmp_path: Path, photo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home, written = tmp_path / "home" / "narrow-0", tmp_path / "true_size.json"
    assert {card.name for card in benchmark.lacking(home / "hub", SPEC)} == set(SPEC.split("+"))
    benchmark.write_weights(home / "hub", SPEC, small=True, seed=0)
    assert not benchmark.lacking(home / "hub", SPEC)
    options = ["--small", "--models", SPEC, "--classes", "cat, dog", "--home", str(home.parent), "--out", str(tmp_path / "out")]
    benchmark.main([str(photo), *options, "--threads", "1", "--json", str(written)])
    assert "the weights are random; the run is real" in capfd.readouterr().out
    record = json.loads(written.read_text())
    assert (record["pictures"], record["small"], record["models"], record["machine"]["threads"]) == (1, True, SPEC, 1)
    assert 1e8 < record["peak_bytes"] < benchmark.LIMIT
    seconds = record["seconds_a_picture"]
    assert 0 < seconds["encode"] < seconds["total"] < record["seconds_of_the_process"]
    provenance = json.loads((tmp_path / "out" / "run.json").read_text())["provenance"]
    assert "openai-rn50" in json.dumps(provenance)
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]) == record["instances"]


def test_clues_by_tips_and_boundaries_by_a_resnet(benchmark: ModuleType, tmp_path: Path, photo: Path) -> None:
    """The parts of the preset modern: its tokenizer, towers and prompts are read from files in the released layouts."""
    spec, written, out = "openai-rn50+tipsv2-l-14+sam-b", tmp_path / "true_size.json", tmp_path / "out"
    options = ["--small", "--models", spec, "--classes", "cat, dog", "--home", str(tmp_path / "home"), "--out", str(out)]
    benchmark.main([str(photo), *options, "--threads", "1", "--json", str(written)])
    assert json.loads(written.read_text())["pictures"] == 1
    provenance = json.dumps(json.loads((out / "run.json").read_text())["provenance"])
    assert "tipsv2-l-14" in provenance and "openai-rn50" in provenance and '"templates": "tips"' in provenance


def test_label_maps_are_counted(benchmark: ModuleType, tmp_path: Path, photo: Path) -> None:
    spec, written = "openai-vit-b-32+sam-b", tmp_path / "true_size.json"
    home = tmp_path / "home" / "narrow-0"
    assert [card.name for card in benchmark.lacking(home / "hub", spec, "clip_diy")] == ["openai-vit-b-32"]
    options = ["--small", "--method", "clip_diy", "--models", spec, "--home", str(home.parent), "--out", str(tmp_path / "out")]
    benchmark.main([str(photo), *options, "--threads", "1", "--json", str(written)])
    record = json.loads(written.read_text())
    assert (record["method"], record["pictures"], record["instances"]) == ("clip_diy", 1, 0)
    assert benchmark.answers(tmp_path / "out") == (1, 0)


def test_the_peak_is_that_of_the_command(benchmark: ModuleType) -> None:
    found = benchmark.measured([sys.executable, "-c", "b'x' * 1_000_000_000"], os.environ)
    assert found.peak > 1e9 and found.seconds > 0


def test_a_command_that_fails_stops_it(benchmark: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"expected exit code 0 of .*, got 3"):
        benchmark.measured([sys.executable, "-c", "raise SystemExit(3)"], os.environ)


@pytest.mark.parametrize(
    ("peak", "failed", "message"),
    [
        (21e9, {}, "expected at most 20 GB at the peak, got 21.0 GB"),
        (1e9, {"a.jpg": "a.jpg: broken"}, "expected all images to be done, got 1 and as failed .*a.jpg: broken"),
    ],
)
def test_too_much_memory_and_failed_pictures_stop_it(
    benchmark: ModuleType, tmp_path: Path, peak: float, failed: dict[str, str], message: str
) -> None:
    seconds = {"total": 1.0, "load": 0.1, "encode": 0.5, "instances": 0.4, "semantic": 0.0}
    timings = {"images": 1, **{f"seconds_{part}": s for part, s in seconds.items()}}
    (tmp_path / "run.json").write_text(json.dumps({"timings": {**timings, "last_call": timings}, "failed": failed}))
    (tmp_path / "annotations.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": []}))
    asked = argparse.Namespace(models="paper", small=False, threads=2)
    with pytest.raises(SystemExit, match=message):
        benchmark.record_of(asked, benchmark.Measured(9.0, int(peak)), tmp_path)


def placed(benchmark: ModuleType, name: str, small: bool, folder: Path) -> Path:
    torch.manual_seed(0)
    for file, content in benchmark.files_of(list_known_cards()[name], small).items():
        (folder / file).write_bytes(content)
    return folder


def test_sam_follows_its_preprocessor_file(benchmark: ModuleType, tmp_path: Path) -> None:
    sam = Sam(placed(benchmark, "sam-b", True, tmp_path), card=list_known_cards()["sam-b"])
    (embedding,) = sam.embed([Image(np.zeros((40, 60, 3), np.uint8))])
    drawn = sam.predict_masks(embedding, boxes=np.array([[5, 5, 30, 30]], np.float32))
    assert drawn.masks.shape == (1, 1, 40, 60) and bool(torch.isfinite(drawn.quality).all())


def test_the_smallest_sam_2_is_read_at_true_size(benchmark: ModuleType, tmp_path: Path) -> None:
    folder = placed(benchmark, "sam2.1-tiny", False, tmp_path)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sam2_video"
    assert Sam(folder, card=list_known_cards()["sam2.1-tiny"]).provenance["name"] == "sam2.1-tiny"


def test_the_architectures_are_of_true_size(benchmark: ModuleType) -> None:
    with torch.device("meta"):
        for name in ("openai-rn50x64", "openai-vit-b-16", "openai-rn50"):
            model = benchmark.CLIP(**benchmark.clip_settings(name, small=False))
            assert sum(p.numel() for p in model.parameters()) == list_known_cards()[name].parameters
        sam = benchmark.random_sam("sam-b", small=False)
        assert sum(p.numel() for p in sam.parameters()) == list_known_cards()["sam-b"].parameters


def test_unknown_models_are_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected as SAM sam-b, or sam2.1-tiny or -large at true size, got sam-h"):
        benchmark.files_of(list_known_cards()["sam-h"], small=False)
    with pytest.raises(SystemExit, match="as CLIP, got laion-vit-b-16"):
        benchmark.files_of(list_known_cards()["laion-vit-b-16"], small=False)
