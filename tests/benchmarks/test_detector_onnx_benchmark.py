"""The benchmark of ONNX files runs on a small detector where onnxruntime is installed, and refuses what has no such file."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import save_detector
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError
from benchmarks import detector_onnx

SMALL: dict[str, Any] = {
    "backbone": "clip-resnet",
    "layers": (1, 1, 1, 1),
    "width": 16,
    "channels": 16,
    "fc": 32,
    "mask_convs": 1,
    "norm": "frozen",
}


def saved(folder: Path, kind: Literal["mask_rcnn", "mask2former"]) -> Path:
    torch.manual_seed(0)
    sizes = {**SMALL, "channels": 32, "queries": 4, "heads": 2, "ffn": 32} if kind == "mask2former" else SMALL
    config = DetectorConfig(kind, ("dog", "cat"), side=64, longest=96, **sizes)
    save_detector(build_network(config), folder, torch.float32)
    return folder


def test_it_prints_a_table_and_writes_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    (tmp_path / "pictures").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "pictures" / f"{seed}.png")
    folder, out = saved(tmp_path / "detector", "mask_rcnn"), tmp_path / "figures.json"
    detector_onnx.main([str(folder), "--pictures", str(tmp_path / "pictures"), "--repeats", "1", "--json", str(out)])
    assert "2 threads, 2 images, 1 repeats" in capsys.readouterr().out
    ours, theirs, ratio = (row["median"] for row in json.loads(out.read_text()).values())
    assert ratio == pytest.approx(theirs / ours) and ratio > 0


def test_a_detector_that_has_no_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a cascade or mask_rcnn, got mask2former"):
        detector_onnx.main([str(saved(tmp_path / "detector", "mask2former")), "--pictures", str(tmp_path)])
