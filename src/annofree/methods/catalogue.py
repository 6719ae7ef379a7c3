"""From names to methods: ``load("zip", models="tiny")``.

Other packages add methods through the entry-point group ``annofree.methods``; a name taken twice is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib.metadata import entry_points
from typing import Any

import torch

from annofree.errors import InputError, unknown_name
from annofree.features.clip import Clip
from annofree.features.sam import Sam
from annofree.features.weights import bundled
from annofree.methods.sam_clip import VARIANTS as SAM_CLIP_VARIANTS
from annofree.methods.sam_clip import SamClip
from annofree.methods.zip import VARIANTS as ZIP_VARIANTS
from annofree.methods.zip import Zip
from annofree.protocols import Masker, Segmenter, VisionLanguage

__all__ = ["METHODS", "MODELS", "VARIANTS", "build", "changed", "load", "load_models"]

Builder = Callable[[VisionLanguage, Masker, Any], Segmenter]

METHODS: dict[str, Builder] = {"zip": Zip, "sam_clip": SamClip}
"""Method name to its constructor (clip, sam, settings or the name of a variant)."""
VARIANTS: dict[str, Mapping[str, Any]] = {"zip": ZIP_VARIANTS, "sam_clip": SAM_CLIP_VARIANTS}
MODELS: dict[str, tuple[str, str]] = {"tiny": ("tiny-clip", "tiny-sam")}
"""Preset name to the folders of its CLIP and its SAM among the bundled models."""


def _methods() -> dict[str, Builder]:
    """The catalogue with what other packages add to it."""
    methods = dict(METHODS)
    for entry in entry_points(group="annofree.methods"):
        if entry.name in methods:
            raise InputError(f"the method {entry.name!r} of {entry.value} is taken already; it needs another name")
        methods[entry.name] = entry.load()
    return methods


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=name).device)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"expected a device such as auto, cpu or cuda, got {name!r}: {str(problem).splitlines()[0]}") from None


def load_models(models: str = "tiny", device: str = "auto") -> tuple[Clip, Sam]:
    """Load the CLIP and the SAM of a preset.

    Raises InputError for an unknown preset or device, MissingError when weights are not there.
    """
    if models not in MODELS:
        raise unknown_name("models preset", models, MODELS)
    clip, sam = MODELS[models]
    place = _device(device)
    return Clip(bundled(clip), place), Sam(bundled(sam), place)


def build(
    method: str, clip: VisionLanguage, sam: Masker, variant: str = "default", changes: Mapping[str, Any] | None = None
) -> Segmenter:
    """Make a method from models at hand; ``changes`` replace settings of the variant by name, nested ones too.

    Raises InputError for an unknown method, variant or setting, and names the nearest known one.
    """
    methods = _methods()
    if method not in methods:
        raise unknown_name("method", method, methods)
    if method not in VARIANTS:
        if changes:
            raise InputError(f"expected no changed settings for {method}, which has none known here, got {', '.join(changes)}")
        return methods[method](clip, sam, variant)
    if variant not in VARIANTS[method]:
        raise unknown_name(f"variant of {method}", variant, VARIANTS[method])
    return methods[method](clip, sam, changed(VARIANTS[method][variant], changes or {}))


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Replace fields of a settings dataclass, and of settings within it, by name."""
    known = {f.name for f in fields(settings)}
    for name in changes:
        if name not in known:
            raise unknown_name("setting", name, known)
    nested = {k: changed(getattr(settings, k), v) for k, v in changes.items() if isinstance(v, Mapping)}
    return replace(settings, **{**changes, **nested})


def load(method: str = "zip", *, models: str = "tiny", variant: str = "default", device: str = "auto") -> Segmenter:
    """Make a method ready to use, by name.

    Raises InputError for an unknown method, variant, preset or device, and names the nearest known one.
    """
    methods = _methods()
    if method not in methods:
        raise unknown_name("method", method, methods)
    if method in VARIANTS and variant not in VARIANTS[method]:
        raise unknown_name(f"variant of {method}", variant, VARIANTS[method])
    return build(method, *load_models(models, device), variant)
