"""A detector in, one file that runs elsewhere out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error

if TYPE_CHECKING:
    from torch import Tensor

    from annofree.detectors.onnx import Agreement

__all__ = ["ExportedModel", "export_model"]

_FORMATS = ("onnx",)
_MOST = 20  # images that are compared
_NOISE = ((1.0, 1.0), (0.75, 1.0), (1.5, 1.0))  # shapes by the detector's side


@dataclass(frozen=True)
class ExportedModel:
    """A detector in one file, and how well it agrees with PyTorch on the images ``check``, or on noise where there are none."""

    path: Path
    agreement: Agreement
    check: Path | None = None

    @property
    def megabytes(self) -> float:
        """The size of the file."""
        return self.path.stat().st_size / 1e6


def export_model(
    checkpoint: str | Path, out: str | Path, *, to: str = "onnx", check: str | Path | None = None
) -> ExportedModel:
    """Write a detector as ONNX with names and preprocessing inside, once onnxruntime answers as PyTorch does.

    ``checkpoint`` is the folder that ``train_detector`` wrote, ``out`` the file to write, ``check`` a file or a folder of
    images that both are asked about (the first 20), by default noise.  Images may have any size.

    Raises InputError for a file that does not end as its format does, a detector that cannot be exported, and answers that
    differ, after which nothing is written; MissingError without a detector, or without annofree[onnx].

    >>> export_model("detector", "model.pt")
    Traceback (most recent call last):
    annofree.errors.InputError: expected a file to write that ends in .onnx, got model.pt; name it model.onnx
    """
    if to not in _FORMATS:
        raise build_unknown_error("format of models", to, _FORMATS)
    out, checkpoint, check = Path(out), Path(checkpoint), None if check is None else Path(check)
    if out.suffix != f".{to}" or out.is_dir():
        raise InputError(f"expected a file to write that ends in .{to}, got {out}; name it {out.with_suffix('.' + to)}")
    from annofree.detectors.checkpoint import load_detector
    from annofree.detectors.onnx import export_onnx
    from annofree.io.atomic import make_folder

    network = load_detector(checkpoint)
    images = _noise(network.config.side) if check is None else _images(check)
    make_folder(out.parent)
    return ExportedModel(out, export_onnx(network, out, images, _about(checkpoint)), check)


def _about(checkpoint: Path) -> dict[str, Any]:
    """What the detector's card says of it, and who wrote the file."""
    from annofree.hub.cards import Card

    about = {"annofree": version("annofree"), "licence": "unknown"}
    if not (checkpoint / "card.json").is_file():
        return about
    card = Card.parse(checkpoint / "card.json")
    return about | {"name": card.name, "licence": card.licence, "tier": card.tier, "world": card.world}


def _noise(side: int) -> list[Tensor]:
    from annofree.detectors.onnx import draw_noise_images

    return draw_noise_images([(round(high * side), round(wide * side)) for high, wide in _NOISE])


def _images(check: Path) -> list[Tensor]:
    import torch

    from annofree.io.images import find_images, read_image

    images = [read_image(path) for path in find_images([check])[:_MOST]]
    return [torch.from_numpy(image.pixels).permute(2, 0, 1) / 255 for image in images]
