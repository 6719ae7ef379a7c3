"""Detectors as ONNX files; what needs onnxruntime is skipped where it is not installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.small_detector import untrained

from annofree.detectors.base import DetectorNetwork
from annofree.detectors.config import DetectorConfig
from annofree.detectors.onnx import OPSET, TOLERANCE, Agreement, compare_answers, draw_noise_images, export_onnx
from annofree.detectors.types import RawDetections
from annofree.errors import InputError, MissingError

Configs = Callable[..., DetectorConfig]
SIZES = [(64, 80), (50, 90), (130, 64), (64, 64), (40, 33)]


def answers(*rows: tuple[float, float, int]) -> list[np.ndarray[Any, Any]]:
    """Boxes at x, with a score and a label each, and masks of one half."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4)
    scores, labels = np.array([s for _, s, _ in rows], np.float32), np.array([k for _, _, k in rows], np.int64)
    return [boxes, scores, labels, np.full((len(rows), 4, 4), 0.5, np.float32)]


# Comparison


def test_answers_are_held_against_the_nearest_of_their_label() -> None:
    ours = answers((0, 0.9, 0), (0, 0.8, 1), (50, 0.7, 0), (90, 0.1, 0))
    theirs = answers((50.02, 0.7, 0), (0, 0.9, 0), (0, 0.8005, 1), (90, 0.1, 0))
    found = compare_answers(ours, theirs, 0.0)
    assert found.differences == pytest.approx({"boxes": 0.02, "scores": 5e-4, "masks": 0}, abs=1e-5)
    assert found.holds and found.answers == 4
    assert not compare_answers(ours, answers((50.2, 0.7, 0), (0, 0.9, 0), (0, 0.8, 1)), 0.0).holds


@pytest.mark.parametrize("swap", [False, True])
def test_an_answer_of_one_side_alone_is_refused_unless_it_is_cut_off_by_a_hair(swap: bool) -> None:
    full, fewer = answers((0, 0.9, 0), (50, 0.8, 1), (90, 0.3, 1)), answers((0, 0.9, 0), (90, 0.3, 1))
    pair = (fewer, full) if swap else (full, fewer)
    assert compare_answers(*pair, 0.0).differences["boxes"] == pytest.approx(40)
    assert np.isinf(compare_answers(answers((0, 0.9, 0)), answers(), 0.0).differences["scores"])
    hair = answers((0, 0.9, 0), (90, 0.0504, 1)), answers((0, 0.9, 0))
    assert compare_answers(*(hair[::-1] if swap else hair), 0.05).holds


def test_agreements_are_joined_by_the_worst() -> None:
    joined = Agreement(1, 3, {"boxes": 0.0, "scores": 1e-4, "masks": 0.0}).merge(
        Agreement(1, 2, {"boxes": 0.01, "scores": 0.0, "masks": 0.0})
    )
    assert (joined.pictures, joined.answers, joined.holds) == (2, 5, True)
    assert str(joined).startswith("5 answers in 2 images, largest differences: boxes 0.01 (at most 0.1), scores 0.0001")
    assert not Agreement(1, 1, {**dict.fromkeys(TOLERANCE, 0.0), "masks": 0.02}).holds


def test_noise_is_the_same_each_time_and_differs_between_pictures() -> None:
    first, second = draw_noise_images([(20, 30), (20, 30)])
    assert first.shape == (3, 20, 30) and 0 <= float(first.min()) < float(first.max()) <= 1
    assert torch.equal(first, draw_noise_images([(20, 30)])[0]) and not torch.equal(first, second)


# Refusals


class Queries(DetectorNetwork):
    """Stands for a network without proposed regions, as Mask2Former is; it has its configuration alone."""

    def forward(self, pixels: Any, targets: Any) -> dict[str, torch.Tensor]:
        raise AssertionError

    def find(self, images: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        raise AssertionError


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_without_the_extra_it_is_named(tiny: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingError, match=r"not installed; install annofree\[onnx\]"):
        export_onnx(untrained(tiny()), tmp_path / "m.onnx", [])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(tiny: Configs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a cascade or mask_rcnn to export to ONNX, got mask2former"):
        export_onnx(Queries(tiny("mask2former")).eval(), tmp_path / "m.onnx", [])
    with pytest.raises(InputError, match="in evaluation mode on the CPU"):
        export_onnx(untrained(tiny()).train(), tmp_path / "m.onnx", [])


# With onnxruntime


@pytest.mark.parametrize("kind", ["cascade", "mask_rcnn"])
def test_the_file_answers_as_pytorch_does_at_any_size(tiny: Configs, tmp_path: Path, kind: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network, path = untrained(tiny(kind, score_floor=0.0)), tmp_path / "m.onnx"
    found = export_onnx(network, path, draw_noise_images(SIZES), {"licence": "CC-BY-4.0"})
    assert found.holds and found.pictures == len(SIZES) and found.answers > 20, found
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    counts = {len(session.run(None, {"pixels": p.numpy()})[0]) for p in draw_noise_images(SIZES)}
    assert len(counts) > 1  # sizes of answers are not those of the image that was traced
    about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert (about["names"], about["side"], about["longest"], about["licence"]) == (["disc", "bar"], 64, 96, "CC-BY-4.0")
    assert about["mean"] == list(network.config.mean) and about["std"] == list(network.config.std)


def test_nothing_found_is_an_answer_too(tiny: Configs, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = export_onnx(untrained(tiny(score_floor=0.999)), tmp_path / "m.onnx", draw_noise_images(SIZES[:2]))
    assert found.holds and found.answers == 0


def without_answers(graph: object, path: Path) -> None:
    """Write a model that finds nothing in any image."""
    onnx: Any = import_module("onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    shapes = {"boxes": (0, 4), "scores": (0,), "labels": (0,), "masks": (0, 28, 28)}
    types = {name: kinds.INT64 if name == "labels" else kinds.FLOAT for name in shapes}
    nodes = [make.make_node("Constant", [], [n], value=make.make_tensor(n, types[n], shape, [])) for n, shape in shapes.items()]
    outputs = [make.make_tensor_value_info(n, types[n], shape) for n, shape in shapes.items()]
    pixels = make.make_tensor_value_info("pixels", kinds.FLOAT, (3, "height", "width"))
    whole = make.make_graph(nodes, "nothing", [pixels], outputs)
    onnx.save(make.make_model(whole, ir_version=8, opset_imports=[make.make_opsetid("", OPSET)]), path)


def test_a_file_that_differs_is_not_written(tiny: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("annofree.detectors.onnx._trace", without_answers)
    with pytest.raises(InputError, match=r"but they differ, so none is written: .* boxes inf"):
        export_onnx(untrained(tiny(score_floor=0.0)), tmp_path / "m.onnx", draw_noise_images(SIZES[:1]))
    assert not list(tmp_path.iterdir())
