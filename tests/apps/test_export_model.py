"""``annofree export-model``; what needs onnxruntime is skipped where it is not installed."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from tests.support.cli import Cli
from tests.support.small_detector import TINY, untrained

from annofree.detectors.checkpoint import save_detector
from annofree.detectors.config import DetectorConfig
from annofree.detectors.onnx import draw_noise_images
from annofree.hub.cards import Card

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"


def test_wrong_calls_are_refused(cli: Cli, tmp_path: Path) -> None:
    said = cli("export-model", tmp_path, "--out", tmp_path / "model.pt")
    assert said.code == 2 and re.search(r"ends in \.onnx, got .*model\.pt; name it .*model\.onnx", said.err)
    said = cli("export-model", tmp_path, "--out", tmp_path / "model.onnx")
    assert said.code == 2 and "expected a detector's folder" in said.err


def example() -> Any:
    spec = spec_from_file_location("run_onnx", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["run_onnx"] = module
    spec.loader.exec_module(module)
    return module


def test_the_command_writes_a_file_that_the_example_runs(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network, folder = untrained(DetectorConfig(kind="cascade", **{**TINY, "score_floor": 0.0})), tmp_path / "checkpoint"
    save_detector(network, folder, torch.float32)
    card = Card(
        name="small", kind="segmenter", family="Detector", tier="S2", licence="MIT", code_licence="Apache-2.0",
        trained_on="nothing", world="noise", files={}, figures={}, parameters=1, preprocessing={},
    )  # fmt: skip
    card.write(folder)
    pixels = (draw_noise_images([(70, 100)])[0] * 255).byte()
    PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    done = cli("export-model", folder, "--out", tmp_path / "made" / "m.onnx", "--check", tmp_path / "a.png")
    assert done.code == 0, done.err
    assert "checked against PyTorch on" in done.out and "answers in 1 images" in done.out
    detector = example().OnnxDetector(str(tmp_path / "made" / "m.onnx"))
    assert (detector.about["name"], detector.about["licence"], detector.about["world"]) == ("small", "MIT", "noise")
    image = PIL.Image.open(tmp_path / "a.png")
    (truth,) = network.detect([pixels / 255])
    surest = detector.find(image, float(truth.scores[4]) - 1e-4)[:3]
    for thing in surest:  # Pillow rounds to whole values where PyTorch does not
        near = (truth.boxes - torch.from_numpy(thing.box)).abs().amax(1).argmin()
        assert float((truth.boxes[near] - torch.from_numpy(thing.box)).abs().max()) < 0.5
        both = thing.mask & truth.masks[near].numpy()
        assert both.sum() >= 0.9 * (thing.mask | truth.masks[near].numpy()).sum()
    assert len(surest) == 3
    assert example().drawn(image, surest).size == image.size
