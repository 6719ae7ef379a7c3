"""Name the things; get boxes, masks and label maps, with no annotation.

>>> import annofree
>>> (found,) = annofree.segment("examples/scenes/oranges.jpg", "orange, elephant", models="tiny", device="cpu")
>>> set(found.detections.labels.tolist())
{'orange'}
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annofree.errors import AnnofreeError, ImageError, InputError, MissingError
    from annofree.io.callbacks import Callbacks
    from annofree.io.images import read_image
    from annofree.methods.build import load
    from annofree.methods.registry import list_methods
    from annofree.pipelines.evaluate import evaluate
    from annofree.pipelines.relabel import relabel
    from annofree.pipelines.segment import segment
    from annofree.structures import Detections, Image, LabelMap, Vocabulary

__all__ = [
    "AnnofreeError",
    "Callbacks",
    "Detections",
    "Image",
    "ImageError",
    "InputError",
    "LabelMap",
    "MissingError",
    "Vocabulary",
    "evaluate",
    "list_methods",
    "load",
    "read_image",
    "relabel",
    "segment",
]
__version__ = version("annofree")

_HOMES = {
    "annofree.errors": ("AnnofreeError", "ImageError", "InputError", "MissingError"),
    "annofree.structures": ("Detections", "Image", "LabelMap", "Vocabulary"),
    "annofree.io.callbacks": ("Callbacks",),
    "annofree.io.images": ("read_image",),
    "annofree.methods.build": ("load",),
    "annofree.methods.registry": ("list_methods",),
    "annofree.pipelines.evaluate": ("evaluate",),
    "annofree.pipelines.relabel": ("relabel",),
    "annofree.pipelines.segment": ("segment",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import annofree`` costs nothing."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'annofree' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
