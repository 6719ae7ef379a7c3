"""A detector from the command line: trained, tuned, and asked like any other method, also again for other names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import save_detector
from annofree.detectors.config import DetectorConfig

CONFIG: dict[str, Any] = {
    "kind": "cascade", "names": ["cat", "dog"], "backbone": "clip-resnet", "layers": [1, 1, 1, 1], "width": 8, "channels": 8,
    "fc": 8, "mask_convs": 1, "side": 48, "longest": 64, "norm": "group", "score_floor": 0.0, "detections": 3,
    "rpn_before": [50, 50], "rpn_after": [20, 20],
}  # fmt: skip
Cli = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a detector and two images, to work in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_detector(build_network(DetectorConfig.of(CONFIG)), tmp_path / "checkpoint")
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for n in range(2):
        PIL.Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "pictures" / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_segments_and_is_asked_again(cli: Cli, here: Path) -> None:
    asked = ("--method", "./checkpoint", "--variant", "all", "--device", "cpu")
    said = cli("segment", "pictures", "--classes", "dog, cat", *asked, "--keep-encodings", "--out", "run")
    assert said.code == 0, said.err
    whole = json.loads((here / "run" / "annotations.json").read_text())
    assert len(whole["images"]) == 2 and len(whole["annotations"]) > 0
    told = json.loads((here / "run" / "run.json").read_text())
    assert told["provenance"]["method"] == "detector" and told["provenance"]["models"][0]["name"] == "checkpoint"
    said = cli("relabel", "run", "--classes", "kitten: cat, zebra", "--out", "again", "--no-overlays")
    assert said.code == 0, said.err
    assert "note: the detector was not trained on 'zebra' and finds none; it knows cat, dog" in said.err
    again = json.loads((here / "again" / "annotations.json").read_text())
    cats = [row["segmentation"] for row in whole["annotations"] if row["category_id"] == 2]
    assert [row["segmentation"] for row in again["annotations"]] == cats and {
        r["category_id"] for r in again["annotations"]
    } <= {1}


def test_what_is_no_detector_is_refused(cli: Cli, here: Path) -> None:
    said = cli("segment", "pictures", "--classes", "dog", "--method", "./pictures")
    assert said.code == 2
    assert "expected a method's name, or a folder with detector.json" in said.err


@pytest.mark.parametrize(
    ("command", "option"),
    [("train detector", "--config"), ("finetune", "--fraction"), ("pseudo-label", "--min-score"), ("export-model", "--to")],
)
def test_the_commands_are_there(cli: Cli, command: str, option: str) -> None:
    said = cli(*command.split(), "--help")
    assert (said.code, said.err) == (0, "")
    assert option in said.out
