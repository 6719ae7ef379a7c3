"""Detectors as ONNX: images a second in onnxruntime beside PyTorch, on the CPU, for the same network and answers.

    uv run --extra onnx python benchmarks/detector_onnx.py DETECTOR --pictures examples/validation/images

Both are given the same pixels, read beforehand, one image at a time, with the same number of threads; both give boxes,
scores, labels and masks within boxes, which are compared before anything is timed.  They are timed in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from annofree.detectors.checkpoint import load_detector
from annofree.detectors.onnx import Graph, export_onnx
from annofree.detectors.region_detector import RegionNetwork
from annofree.errors import InputError
from annofree.io.images import find_images, read_image
from annofree.testing.timing import Spread, measure_seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description="A detector in onnxruntime beside PyTorch.")
    parser.add_argument("detector", type=Path, help="a folder that annofree train detector wrote: a cascade or mask_rcnn")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of images")
    parser.add_argument("--limit", type=int, default=30, help="pictures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    network = load_detector(asked.detector)
    if not isinstance(network, RegionNetwork):
        raise InputError(f"expected a cascade or mask_rcnn, got {network.config.kind}")
    images = [read_image(path) for path in find_images([asked.pictures])[: asked.limit]]
    pictures = [torch.from_numpy(image.pixels).permute(2, 0, 1) / 255 for image in images]
    graph = Graph(network).eval()
    read = [graph.read(picture) for picture in pictures]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detector.onnx"
        print(export_onnx(network, file, pictures), end="\n\n")
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = asked.threads
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def by_torch() -> list[tuple[Tensor, ...]]:
        return [graph(pixels) for pixels in read]

    def by_onnx() -> list[object]:
        return [session.run(None, {"pixels": pixels.numpy()}) for pixels in read]

    rounds = [(len(read) / measure_seconds(by_torch), len(read) / measure_seconds(by_onnx)) for _ in range(asked.repeats + 1)][
        1:
    ]
    told = {
        "PyTorch, images a second": Spread.of([ours for ours, _ in rounds]),
        "onnxruntime, images a second": Spread.of([theirs for _, theirs in rounds]),
        "onnxruntime / PyTorch": Spread.of([theirs / ours for ours, theirs in rounds]),
    }
    print(f"{asked.threads} threads, {len(read)} images, {asked.repeats} repeats{'median':>12}{'least':>10}{'most':>10}")
    for name, spread in told.items():
        print(f"{name:38}" + "".join(f"{value:10.2f}" for value in spread))
    if asked.json:
        asked.json.write_text(json.dumps({name: spread._asdict() for name, spread in told.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
