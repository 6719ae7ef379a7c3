"""``annofree export-model``: a trained detector as one file that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from annofree.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["export_model"]

_MOST = 20
_NOISE = ((1.0, 1.0), (0.75, 1.0), (1.5, 1.0))  # shapes by the detector's side


def export_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="The folder that `annofree train detector` wrote.", show_default=False, metavar="CHECKPOINT")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, such as model.onnx.", show_default=False)],
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",
    check: Annotated[
        Path | None, typer.Option(help="Pictures, a file or a folder, that both are asked about (the first 20); else noise.")
    ] = None,
) -> None:
    """Write a detector as ONNX with names and preprocessing inside, once onnxruntime answers as PyTorch does.

    Needs annofree[onnx].  Pictures may have any size; examples/run_onnx.py runs the file with onnxruntime, numpy and Pillow
    alone.  Exit code 0: written and checked; 2: the call was wrong, or answers differ, and nothing was written.

    Example: annofree export-model detector --out model.onnx
    """
    from annofree.detectors.checkpoint import load_detector
    from annofree.detectors.onnx import export_onnx
    from annofree.io.atomic import make_folder

    if out.suffix != f".{to}" or out.is_dir():
        raise InputError(f"expected a file to write that ends in .{to}, got {out}; name it {out.with_suffix('.' + to)}")
    network = load_detector(checkpoint)
    pictures = _noise(network.config.side) if check is None else _pictures(check)
    make_folder(out.parent)
    found = export_onnx(network, out, pictures, _about(checkpoint))
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    print(f"checked against PyTorch on {'noise' if check is None else check}: {found}")
    if not found.answers:
        print("nothing was found in any of them, so only that was compared; pass --check PICTURES that show what it finds")


def _about(checkpoint: Path) -> dict[str, Any]:
    """What the detector's card says of it, and who wrote the file."""
    from importlib.metadata import version

    from annofree.hub.cards import Card

    about = {"annofree": version("annofree"), "licence": "unknown"}
    if not (checkpoint / "card.json").is_file():
        return about
    card = Card.parse(checkpoint / "card.json")
    return about | {"name": card.name, "licence": card.licence, "tier": card.tier, "world": card.world}


def _noise(side: int) -> list[Tensor]:
    from annofree.detectors.onnx import noise_pictures

    return noise_pictures([(round(high * side), round(wide * side)) for high, wide in _NOISE])


def _pictures(check: Path) -> list[Tensor]:
    import torch

    from annofree.io.images import find_images, read_image

    images = [read_image(path) for path in find_images([check])[:_MOST]]
    return [torch.from_numpy(image.pixels).permute(2, 0, 1) / 255 for image in images]
