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
    from annofree.datasets.emoji.draw import draw_emoji_world
    from annofree.errors import AnnofreeError, ImageError, InputError, MissingError
    from annofree.experiments.reproduce import reproduce
    from annofree.formats.convert import convert
    from annofree.hub.catalogue import add_models, bundle_models, list_models, pull_models, verify_models
    from annofree.io.callbacks import Callbacks
    from annofree.io.images import read_image
    from annofree.methods.build import load
    from annofree.methods.registry import list_methods
    from annofree.methods.show_model import show_model
    from annofree.pipelines.build_index import build_index
    from annofree.pipelines.compare import compare
    from annofree.pipelines.doctor import doctor
    from annofree.pipelines.evaluate import evaluate
    from annofree.pipelines.explain import explain
    from annofree.pipelines.export import export
    from annofree.pipelines.learning.learn import learn
    from annofree.pipelines.mask_archive import mask_archive
    from annofree.pipelines.merge import merge
    from annofree.pipelines.name_masks import name_masks
    from annofree.pipelines.relabel import relabel
    from annofree.pipelines.report import report
    from annofree.pipelines.retrieve import retrieve
    from annofree.pipelines.review import review
    from annofree.pipelines.segment import segment
    from annofree.pipelines.training.export_model import export_model
    from annofree.pipelines.training.finetune import finetune
    from annofree.pipelines.training.pseudo_label import pseudo_label
    from annofree.pipelines.training.train_detector import train_detector
    from annofree.pipelines.training.train_found import train_found
    from annofree.pipelines.training.train_namedmask import train_namedmask
    from annofree.pipelines.training.train_selfmask import train_selfmask
    from annofree.pipelines.training.train_tiny import train_tiny
    from annofree.pipelines.training.train_zutis import train_zutis
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
    "add_models",
    "build_index",
    "bundle_models",
    "compare",
    "convert",
    "doctor",
    "draw_emoji_world",
    "evaluate",
    "explain",
    "export",
    "export_model",
    "finetune",
    "learn",
    "list_methods",
    "list_models",
    "load",
    "mask_archive",
    "merge",
    "name_masks",
    "pseudo_label",
    "pull_models",
    "read_image",
    "relabel",
    "report",
    "reproduce",
    "retrieve",
    "review",
    "segment",
    "show_model",
    "train_detector",
    "train_found",
    "train_namedmask",
    "train_selfmask",
    "train_tiny",
    "train_zutis",
    "verify_models",
]
__version__ = version("annofree")

_HOMES = {
    "annofree.errors": (
        "AnnofreeError",
        "ImageError",
        "InputError",
        "MissingError",
    ),
    "annofree.structures": (
        "Detections",
        "Image",
        "LabelMap",
        "Vocabulary",
    ),
    "annofree.io.callbacks": ("Callbacks",),
    "annofree.io.images": ("read_image",),
    "annofree.datasets.emoji.draw": ("draw_emoji_world",),
    "annofree.formats.convert": ("convert",),
    "annofree.hub.catalogue": (
        "add_models",
        "bundle_models",
        "list_models",
        "pull_models",
        "verify_models",
    ),
    "annofree.methods.build": ("load",),
    "annofree.methods.registry": ("list_methods",),
    "annofree.methods.show_model": ("show_model",),
    "annofree.pipelines.build_index": ("build_index",),
    "annofree.pipelines.compare": ("compare",),
    "annofree.pipelines.doctor": ("doctor",),
    "annofree.pipelines.evaluate": ("evaluate",),
    "annofree.pipelines.explain": ("explain",),
    "annofree.pipelines.export": ("export",),
    "annofree.pipelines.learning.learn": ("learn",),
    "annofree.pipelines.mask_archive": ("mask_archive",),
    "annofree.pipelines.merge": ("merge",),
    "annofree.pipelines.name_masks": ("name_masks",),
    "annofree.pipelines.relabel": ("relabel",),
    "annofree.pipelines.report": ("report",),
    "annofree.pipelines.retrieve": ("retrieve",),
    "annofree.pipelines.review": ("review",),
    "annofree.pipelines.segment": ("segment",),
    "annofree.pipelines.training.export_model": ("export_model",),
    "annofree.pipelines.training.finetune": ("finetune",),
    "annofree.pipelines.training.pseudo_label": ("pseudo_label",),
    "annofree.pipelines.training.train_detector": ("train_detector",),
    "annofree.pipelines.training.train_found": ("train_found",),
    "annofree.pipelines.training.train_namedmask": ("train_namedmask",),
    "annofree.pipelines.training.train_selfmask": ("train_selfmask",),
    "annofree.pipelines.training.train_tiny": ("train_tiny",),
    "annofree.pipelines.training.train_zutis": ("train_zutis",),
    "annofree.experiments.reproduce": ("reproduce",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import annofree`` costs nothing."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'annofree' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
