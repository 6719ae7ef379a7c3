"""ONNX export of detectors, to run without this project and PyTorch.

    pixels (3, H, W) float32 RGB in 0 .. 1, of any size   -> normalized and padded inside -> boxes (N, 4) px of those pixels,
    brought to ``side`` and ``longest`` by the caller        scores (N), labels (N) int64, masks (N, M, M) within the boxes

A file is written only if onnxruntime agrees with PyTorch within ``TOLERANCE``.  Class names, sizes and whatever else
a caller needs are in its metadata, each value as JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.detectors.base import DetectorNetwork
from annofree.detectors.preprocessing import STRIDE, compute_working_size, normalize_image, resize_image
from annofree.detectors.region_detector import RegionNetwork
from annofree.errors import InputError, MissingError
from annofree.io.atomic import write_atomic

__all__ = ["OPSET", "TOLERANCE", "Agreement", "Graph", "compare_answers", "draw_noise_images", "export_onnx"]

OPSET = 18
"""Of ONNX's operators; RoIAlign with aligned pixels needs 16."""
TOLERANCE: Mapping[str, float] = MappingProxyType({"boxes": 0.1, "scores": 1e-3, "masks": 1e-2})
"""How far boxes (px), scores and masks (probabilities) may be from PyTorch's."""

_OUTPUTS = ("boxes", "scores", "labels", "masks")
_COARSE = 8  # cells a side of an image of noise

Answers = Sequence[npt.NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """The largest differences between a file's outputs and the network's: boxes in px, scores, masks.

    Measured over ``answers`` in ``pictures``; infinite if one side lacks a detection.
    """

    pictures: int = 0
    answers: int = 0
    differences: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(TOLERANCE, 0.0))

    @property
    def holds(self) -> bool:
        """Whether all differences are within ``TOLERANCE``."""
        return all(self.differences[name] <= most for name, most in TOLERANCE.items())

    def merge(self, other: Agreement) -> Agreement:
        """Combine both agreements."""
        worst = {name: max(value, other.differences[name]) for name, value in self.differences.items()}
        return Agreement(self.pictures + other.pictures, self.answers + other.answers, worst)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value:.1g} (at most {TOLERANCE[name]:g})" for name, value in self.differences.items())
        return f"{self.answers} answers in {self.pictures} images, largest differences: {told}"


def export_onnx(
    network: DetectorNetwork, path: Path, images: Sequence[Tensor], about: Mapping[str, Any] | None = None
) -> Agreement:
    """Write a detector to an ONNX file that takes images of any size, and say how well it agrees with PyTorch.

    ``pictures`` (3, H, W) float in 0 .. 1 of several sizes are the test inputs; ``about`` (license, name, version ...) goes
    into the metadata.  Nothing is written if outputs differ by more than ``TOLERANCE``.

    Raises InputError for a Mask2Former, whose attention cannot be exported for more than one size, for a network that is in
    training mode or not on the CPU, and where answers differ; MissingError without onnx and onnxruntime.
    """
    if not isinstance(network, RegionNetwork):
        raise InputError(f"expected a cascade or mask_rcnn to export to ONNX, got {network.config.kind}; train one of those")
    if network.training or network.device != "cpu":
        raise InputError("expected a detector in evaluation mode on the CPU to export; load it with load_detector(folder)")
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    graph, found = Graph(network).eval(), Agreement()

    def write(temporary: Path) -> None:
        nonlocal found
        _trace(graph, temporary)
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, _metadata(network, about or {}))
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        found = _agreement(graph, runtime, temporary, images)
        if not found.holds:
            raise InputError(
                f"expected the answers of PyTorch from the ONNX file, but they differ, so none is written: {found}"
            )

    write_atomic(path, write)
    return found


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingError(f"export to ONNX needs {name}, which is not installed; install annofree[onnx]") from None


class Graph(nn.Module):
    """A network as a function of the pixels of one image, at the size that it is read."""

    def __init__(self, network: RegionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From pixels (3, H, W), as ``read`` gives them, to boxes (N, 4), scores, labels (N) and masks (N, M, M)."""
        config = self.network.config
        plain = normalize_image(pixels, config.mean, config.std)
        height, width = plain.shape[1], plain.shape[2]  # numbers of the graph, not of this image
        located = self.network.locate(F.pad(plain, (0, -width % STRIDE, 0, -height % STRIDE)), (height, width))
        return located.boxes, located.scores, located.labels, located.masks

    def read(self, image: Tensor) -> Tensor:
        """An image (3, H, W) at the size that it is read."""
        config = self.network.config
        return resize_image(image, compute_working_size((image.shape[1], image.shape[2]), config.side, config.longest))


def _trace(graph: Graph, path: Path) -> None:
    """Trace the graph; its warnings about constants are covered by the comparison."""
    config = graph.network.config
    axes = {"pixels": {1: "height", 2: "width"}, **{name: {0: "answers"} for name in _OUTPUTS}}
    example = graph.read(draw_noise_images([(config.side, config.side * 5 // 4)])[0])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (example,),
            path,
            dynamo=False,  # the newer exporter needs sizes that do not depend on what is found
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(_OUTPUTS),
            dynamic_axes=axes,
        )


def _metadata(network: DetectorNetwork, about: Mapping[str, Any]) -> dict[str, str]:
    config = network.config
    own: dict[str, Any] = {"kind": config.kind, "names": config.names, "side": config.side, "longest": config.longest}
    own |= {"mean": config.mean, "std": config.std, "normalised": "inside", "resized": "bilinear, antialiased, by the caller"}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in {**about, **own}.items()}


def _agreement(graph: Graph, runtime: Any, path: Path, images: Sequence[Tensor]) -> Agreement:
    found, floor = Agreement(), graph.network.config.score_floor
    for image, theirs in zip(images, _answers(runtime, path, map(graph.read, images)), strict=True):
        with torch.inference_mode():
            ours = [part.numpy() for part in graph(graph.read(image))]
        found = found.merge(compare_answers(ours, theirs, floor))
    return found


def _answers(runtime: Any, path: Path, images: Iterable[Tensor]) -> list[Answers]:
    """Run the file on images as they are read; raises InputError where onnxruntime cannot."""
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [session.run(list(_OUTPUTS), {"pixels": pixels.numpy()}) for pixels in images]
    except Exception as problem:  # onnxruntime's errors have no common class but this
        raise InputError(f"expected an ONNX file that onnxruntime runs at every size, but it does not: {problem}") from None


def compare_answers(ours: Answers, theirs: Answers, floor: float) -> Agreement:
    """Hold the answers (boxes, scores, labels, masks) of one image against others, each with the nearest of its label.

    Detections that barely exceed ``floor``, or the lowest score, may be on one side only.

    >>> one = [np.zeros((1, 4)), np.ones(1), np.zeros(1), np.ones((1, 2, 2))]
    >>> compare_answers(one, [one[0] + 0.5, *one[1:]], 0.0).differences
    {'boxes': 0.5, 'scores': 0.0, 'masks': 0.0}
    """
    differences = dict.fromkeys(TOLERANCE, 0.0)
    for left, right in ((ours, theirs), (theirs, ours)):
        least = max(floor, float(min(left[1], default=0.0)) if len(left[1]) > 1 else 0.0) + TOLERANCE["scores"]
        for i in np.flatnonzero(left[1] > least):
            for name, value in _nearest(left, int(i), right).items():
                differences[name] = max(differences[name], value)
    return Agreement(1, len(ours[1]), differences)


def _nearest(left: Answers, i: int, right: Answers) -> dict[str, float]:
    """The distance of one detection to the nearest of its label on the other side."""
    same = np.flatnonzero(right[2] == left[2][i])
    if not len(same):
        return dict.fromkeys(TOLERANCE, np.inf)
    boxes = np.abs(right[0][same] - left[0][i]).max(1)
    j = same[boxes.argmin()]
    scores, masks = abs(right[1][j] - left[1][i]), np.abs(right[3][j] - left[3][i]).max()
    return {"boxes": float(boxes.min()), "scores": float(scores), "masks": float(masks)}


def draw_noise_images(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    """Colored clouds (3, H, W) of the sizes, for a check without images; a trained detector may find nothing in them."""
    source = torch.Generator().manual_seed(seed)
    coarse = [torch.rand(1, 3, _COARSE, _COARSE, generator=source) for _ in sizes]
    return [F.interpolate(c, size=size, mode="bilinear")[0] for c, size in zip(coarse, sizes, strict=True)]
