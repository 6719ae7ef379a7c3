"""The detector of a learning's best round, put where it is looked for, and written as ONNX."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from annofree.errors import InputError, MissingError
from annofree.io.files.scratch import open_scratch
from annofree.pipelines.training.export_model import export_model

__all__ = ["copy_detector", "export_onnx"]


def copy_detector(trained: Path, place: Path) -> None:
    """Copy the folder of a trained detector, without what only its training needs, in the place of what is there."""
    with open_scratch(place, "detector") as scratch:
        copied = scratch / "detector"
        shutil.copytree(trained, copied, ignore=shutil.ignore_patterns("checkpoint*", "lock"))
        shutil.rmtree(place, ignore_errors=True)
        copied.replace(place)


def export_onnx(detector: Path, say: Callable[[str], None]) -> None:
    """Write a detector's ONNX file beside its folder, where that can be done; why it cannot is said."""
    try:
        export_model(detector, detector.with_suffix(".onnx"))
    except (InputError, MissingError) as problem:
        say(f"no {detector.name}.onnx: {problem}")
