"""The one place where a method is assembled: of its name, the models of a preset, settings and a policy.

MethodSpec -> models, each part loaded when it is needed -> the method -> under its policy, what answers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from annofree.clues.background import Background
from annofree.errors import InputError
from annofree.features.controls import Control, apply_control
from annofree.features.zutis_weights import load_zutis
from annofree.hub.presets import DEFAULT
from annofree.methods.components import Models
from annofree.methods.dense.label_instances import RegionSettings
from annofree.methods.dense.reco_references import open_references
from annofree.methods.detector import open_detector
from annofree.methods.namedmask import open_namedmask
from annofree.methods.policies import apply_policy
from annofree.methods.registry import Entry, Task, find_method, resolve_method_name
from annofree.methods.steps.redrawing import RedrawnLabels
from annofree.methods.steps.regions import LabelRegions
from annofree.methods.tuning import find_tuning
from annofree.methods.variants import change_settings
from annofree.protocols import Segmenter, SemanticSegmenter, UniversalSegmenter
from annofree.structures import BACKGROUND, Vocabulary

__all__ = ["OPENERS", "PROTOCOLS", "LoadOptions", "MethodSpec", "build_method", "change_settings", "load"]

PROTOCOLS: dict[Task, type] = {"instance": Segmenter, "semantic": SemanticSegmenter}
"""The protocol of the methods that can do a task."""

OPENERS: dict[str, Callable[[Path, str], Any]] = {
    "zutis": load_zutis,
    "detector": open_detector,
    "namedmask": open_namedmask,
    "archive": open_references,
}
"""How what was trained or gathered is opened, by its role; the arguments are its folder and the device."""

Share = Callable[..., Any]
"""Called with a function that loads a part and with what tells the part from others; returns the part, loaded or kept."""


@dataclass(frozen=True)
class MethodSpec:
    """All that makes a method."""

    # name in the registry, or the folder of a trained detector
    method: str = "zip"
    # which of the method's named settings
    variant: str = "default"
    # preset, or names of models joined by +
    models: str = DEFAULT
    # auto, cpu, cuda, ...
    device: str = "auto"
    # what the image encoders of CLIP and SAM compute in: float32, bfloat16, float16
    precision: str = "float32"
    # settings that replace those of the variant by name, nested ones too
    settings: Mapping[str, Any] = field(default_factory=dict)
    # where objects are, for methods that ask: a source by name, as OBJECTNESS_ROLES has them
    objectness: str = "found"
    # other models by role: the name of a card, or the folder of a network that was trained
    parts: Mapping[str, str | Path] = field(default_factory=dict)
    # what takes the place of CLIP's boundary features, in experiments (``features/controls.py``)
    control: Control | None = None
    # all: the whole ranking; answer: the preset's output policy; or changes of that policy by name
    policy: str | Mapping[str, Any] = "all"
    # distractors: names that compete with the classes and are dropped from the output
    negatives: tuple[str, ...] = ()
    # classes that are no instances, which the objectness ``instances`` does not ask for
    stuff: tuple[str, ...] = ()

    @property
    def entry(self) -> Entry:
        """What the registry has of the method; raises InputError for an unknown method or variant."""
        return find_method(self.method, self.variant)

    def build(self, vocabulary: Vocabulary | None = None, models: Models | None = None, share: Share | None = None) -> Any:
        """Assemble the method; weights that are not on this machine are downloaded first.

        ``vocabulary`` is what the objectness ``instances`` asks for; ``models`` take the place of those named; ``share`` keeps
        parts that several methods have in common.  Raises InputError for an unknown method, variant, preset, model,
        device, source or setting, and names the nearest known one; MissingError when weights are neither here nor to be had.
        """
        entry, settings = self.entry, {**self.settings, **self.find_competing()}
        roles = entry.list_roles(self.objectness, self.settings)
        own = models or Models(self.models, self.device, objectness=self.objectness, precision=self.precision)
        own = self._with_parts(own if own.source == self.objectness else own.with_parts(source=self.objectness))
        own.fetch(role for role in roles if role not in vars(own))
        if entry.objectness and self.objectness == "instances":
            own = own.with_parts(segmenter=build_method("zip", own), classes=self._objects(vocabulary))
        if share is not None:
            own = own.with_parts(**self._shared(own, share, vocabulary))
        elif self.control:
            own = own.with_parts(clip=self._control(own))
        built = build_method(self.method, own, self.variant, settings)
        return apply_policy(built, self.method, own, self.policy, self.negatives if self.policy != "all" else ())

    def _with_parts(self, models: Models) -> Models:
        """Put the parts that are named in the place of the preset's."""
        cards = {role: part for role, part in self.parts.items() if isinstance(part, str)}
        folders = {role: OPENERS[role](part, models.device) for role, part in self.parts.items() if isinstance(part, Path)}
        models = models.with_cards(**cards) if cards else models
        return models.with_parts(**folders) if folders else models

    def _shared(self, models: Models, share: Share, vocabulary: Vocabulary | None) -> dict[str, Any]:
        """The parts that the method looks at images with, each from where methods share them."""
        entry, clip = self.entry, " ".join(str(self.parts.get(role, "")) for role in ("clip", "boundaries"))
        shared = share(lambda: models.clip, "clip", clip)
        having = {"clip": share(lambda: self._control(models, shared), "clip", clip, self.control) if self.control else shared}
        taken = (role for role in entry.takes if getattr(models.preset, role) is not None or role in vars(models))
        for role in (*entry.list_roles("none", self.settings), *taken):
            if role in (*OPENERS, "sam"):
                having[role] = share(partial(getattr, models, role), role, str(self.parts.get(role, "")))
        if entry.objectness and self.objectness != "none":
            having["objectness"] = share(
                lambda: models.objectness, "objectness", self.objectness, str(self.parts.get("detector", ""))
            )
        return having

    def _control(self, models: Models, clues: Any = None) -> Any:
        """The CLIP with what takes the place of its boundary features."""
        assert self.control is not None  # noqa: S101 -- both callers ask
        return apply_control(models.clip, self.control, dino=models.dino if self.control == "dino" else None, clues=clues)

    def _objects(self, vocabulary: Vocabulary | None) -> Vocabulary:
        """The classes that may be instances, all of them where none may."""
        if vocabulary is None:
            raise InputError("expected class names for the objectness instances, which asks for them; choose another source")
        words = vocabulary.synonyms
        return Vocabulary.from_entries([w for w in words if w[0] not in self.stuff and w[0].lower() != BACKGROUND] or words)

    def find_competing(self) -> dict[str, Any]:
        """What to change in the method's settings so that its negatives compete; nothing where they cannot."""
        settings = self.entry.variants.get(self.variant)
        if self.negatives and hasattr(settings, "negatives"):
            return {"negatives": self.negatives}
        own = getattr(settings, "background", None)
        if not self.negatives or not own:
            return {}
        if isinstance(own, Background):
            return {"background": {"words": (*own.words, *self.negatives)}} if own.rule == "words" else {}
        return {"background": (*own, *self.negatives)}


def build_method(method: str, models: Models, variant: str = "default", changes: Mapping[str, Any] | None = None) -> Any:
    """Make a method of models at hand; ``changes`` replace settings of the variant by name, nested ones too.

    The variant ``default`` has the settings that were chosen with the models of the preset, where there are any.
    Raises InputError for an unknown method, variant or setting, and names the nearest known one.
    """
    entry = find_method(method, variant)
    if not entry.variants:
        if changes:
            raise InputError(f"expected no changed settings for {method}, which has none known here, got {', '.join(changes)}")
        return _complete(entry, models, variant)
    name = entry.name or resolve_method_name(method)
    chosen = find_tuning(models.preset.name, name).settings if variant == "default" else {}
    return _complete(entry, models, change_settings(change_settings(entry.variants[variant], chosen), changes or {}))


def _complete(entry: Entry, models: Models, settings: Any) -> Any:
    """Make a method, with regions for instances where it finds none itself, and a SAM behind it where they are redrawn."""
    if isinstance(settings, RegionSettings) and settings.redraw != "none":
        return RedrawnLabels(entry.build(models, replace(settings, redraw="none")), models.sam, settings.redraw)
    built = entry.build(models, settings)
    return LabelRegions(built) if entry.regions and not isinstance(built, Segmenter) else built


InstanceMethod = Literal[
    "zip",
    "open_vocabulary",
    "sam_clip",
    "detector",
    "maskcut",
    "discovery",
    "maskdistill",
    "fragments",
    "sam_everything",
]
UniversalMethod = Literal[
    "consensus",
    "clip_diy",
    "mask_crops",
    "maskclip",
    "clip_surgery",
    "patch_cosine",
    "proxy_clip",
    "region_clip",
    "tcl",
    "groupvit",
    "zutis",
    "reco",
    "namedmask",
]
"""The methods of this package by what they answer; what a folder or another package has is known when it is loaded."""


class LoadOptions(TypedDict, total=False):
    """The options of ``load`` beside the method, as fields of ``MethodSpec``."""

    models: str
    variant: str
    device: str
    objectness: str
    precision: str
    settings: Mapping[str, Any]
    policy: str | Mapping[str, Any]
    negatives: Sequence[str]


@overload
def load(method: InstanceMethod = ..., **options: Unpack[LoadOptions]) -> Segmenter: ...
@overload
def load(method: UniversalMethod, **options: Unpack[LoadOptions]) -> UniversalSegmenter: ...
@overload
def load(method: str, **options: Unpack[LoadOptions]) -> Any: ...  # a folder, or the method of another package
def load(
    method: str = "zip",
    *,
    models: str = DEFAULT,
    variant: str = "default",
    device: str = "auto",
    objectness: str = "found",
    precision: str = "float32",
    settings: Mapping[str, Any] | None = None,
    policy: str | Mapping[str, Any] = "all",
    negatives: Sequence[str] = (),
) -> Any:
    """Make a method ready to use, by name or by the folder of a trained detector.

    ``objectness`` is the source of the map that says where objects are, for CLIP-DIY; ``precision`` what the image encoders of
    CLIP and SAM compute in; ``settings`` replace those of the variant by name, nested ones too.  ``policy`` says which
    instances are returned: ``all`` that are ranked, ``answer``, or changes of the preset's policy by name.  ``negatives`` are
    distractors: names that compete with the classes, beside the preset's own, and are dropped from the output.

    Weights that are not on this machine are downloaded first.  Raises InputError for an unknown method, variant, preset, model,
    device, source or setting, and names the nearest known one; MissingError when weights are neither here nor on a hub.

    >>> zip_ = load("zip", models="tiny", device="cpu")
    >>> zip_.provenance["method"]
    'zip'
    """
    spec = MethodSpec(method, variant, models, device, precision, settings or {}, objectness, policy=policy)
    return replace(spec, negatives=tuple(negatives)).build()
