"""Name the things; get boxes, masks and label maps, with no annotation.

>>> import annofree
>>> zip_ = annofree.load("zip", models="tiny", device="cpu")
>>> picture = annofree.read_image("examples/scenes/oranges.jpg")
>>> encoding = zip_.encode([picture])[0]
>>> found = zip_.instances(encoding, ["orange", "elephant"])
>>> set(found.labels.tolist())
{'orange'}
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annofree.errors import AnnofreeError, ImageError, InputError, MissingError
    from annofree.io.images import read_image
    from annofree.methods.registry import load
    from annofree.structures import Detections, Image, LabelMap, Vocabulary

__all__ = [
    "AnnofreeError",
    "Detections",
    "Image",
    "ImageError",
    "InputError",
    "LabelMap",
    "MissingError",
    "Vocabulary",
    "load",
    "read_image",
]
__version__ = version("annofree")

_HOMES = {
    "annofree.errors": ("AnnofreeError", "ImageError", "InputError", "MissingError"),
    "annofree.structures": ("Detections", "Image", "LabelMap", "Vocabulary"),
    "annofree.methods.registry": ("load",),
    "annofree.io.images": ("read_image",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import annofree`` costs nothing."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'annofree' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
