"""From names to methods: ``load("zip", models="fast")``; and from folders, for a detector that was trained is a method, too.

Other packages add methods through the entry-point group ``annofree.methods``, each an ``Entry`` or a function of models and
settings; a name taken twice is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypedDict, Union, Unpack, get_args, get_origin, get_type_hints, overload

from annofree.errors import InputError, unknown_name
from annofree.hub.cards import Card
from annofree.hub.presets import DEFAULT, Role
from annofree.io.settings_file import check_type
from annofree.methods import clip_diy, clip_surgery, consensus, detector, maskclip, patch_cosine, sam_clip, zutis
from annofree.methods import zip as zip_
from annofree.methods.components import OBJECTNESS_ROLES, Models
from annofree.methods.tuning import POLICIES, answering, policy_of, tuned
from annofree.protocols import DualSegmenter, Segmenter, SemanticSegmenter

__all__ = ["METHODS", "TASKS", "Entry", "Models", "build", "changed", "decided", "entry_of", "load", "method_named", "methods"]

Task = Literal["instance", "semantic"]
TASKS: dict[Task, type] = {"instance": Segmenter, "semantic": SemanticSegmenter}
"""What a method may be asked for, and the protocol of those that can."""

InstanceMethod = Literal["zip", "sam_clip", "detector"]
SemanticMethod = Literal["clip_diy"]
DualMethod = Literal["consensus", "maskclip", "clip_surgery", "patch_cosine", "zutis"]
"""The methods that are here by what they answer; those of other packages and of folders are known when they are loaded."""

_CLIP: tuple[Role, ...] = ("clip",)
_CLIP_SAM: tuple[Role, ...] = ("clip", "boundaries", "sam")


@dataclass(frozen=True)
class Entry:
    """One method: how it is built of models and settings, its variants, the roles of the models it needs, what it answers.

    Models of the roles that it ``needs`` are fetched at once, before it is built; others when it asks for them.  ``cards`` are
    those of weights that it brings itself.
    """

    build: Callable[[Models, Any], Any]
    variants: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[Role, ...] = _CLIP_SAM
    tasks: tuple[Task, ...] = ("instance",)
    objectness: bool = False
    cards: tuple[Card, ...] = ()

    def roles(self, models: Models) -> tuple[Role, ...]:
        """The roles of the models it needs, those of the objectness among them."""
        return (*self.needs, *(OBJECTNESS_ROLES[models.source] if self.objectness else ()))


def _consensus(models: Models, settings: Any) -> Any:
    """With the detector of the models, where they have one, and the calibration of their preset."""
    policy = policy_of(models.preset.name, "consensus")
    if settings.calibration is None:
        settings = replace(settings, naming=policy.naming, calibration=policy.calibration)
    if models.preset.detector is None and "detector" not in vars(models):
        return consensus.Consensus(models.clip, models.sam, settings)
    network, origin = models.detector
    return consensus.Consensus(models.clip, models.sam, settings, network, origin.weights)


_BOTH: tuple[Task, ...] = ("instance", "semantic")

METHODS: dict[str, Entry] = {
    "zip": Entry(lambda m, s: zip_.Zip(m.clip, m.sam, s), zip_.VARIANTS, _CLIP_SAM),
    "consensus": Entry(_consensus, consensus.VARIANTS, _CLIP_SAM, _BOTH),
    "sam_clip": Entry(lambda m, s: sam_clip.SamClip(m.clip, m.sam, s), sam_clip.VARIANTS, ("clip", "sam")),
    "clip_diy": Entry(
        lambda m, s: clip_diy.ClipDiy(m.clip, m.objectness, s), clip_diy.VARIANTS, _CLIP, ("semantic",), objectness=True
    ),
    "maskclip": Entry(lambda m, s: maskclip.MaskClip(m.clip, s), maskclip.VARIANTS, _CLIP, _BOTH),
    "clip_surgery": Entry(lambda m, s: clip_surgery.ClipSurgery(m.clip, s), clip_surgery.VARIANTS, _CLIP, _BOTH),
    "patch_cosine": Entry(lambda m, s: patch_cosine.PatchCosine(m.clip, s), patch_cosine.VARIANTS, _CLIP, _BOTH),
    "zutis": Entry(lambda m, s: zutis.Zutis(m.zutis, m.clip, s), zutis.VARIANTS, ("clip", "zutis"), _BOTH),
    "detector": Entry(lambda m, s: detector.Detector(*m.detector, s), detector.VARIANTS, ("detector",)),
}
"""Method name to its entry."""


def methods() -> dict[str, Entry]:
    """The catalogue with what other packages add to it."""
    known = dict(METHODS)
    for entry in entry_points(group="annofree.methods"):
        if entry.name in known:
            raise InputError(f"the method {entry.name!r} of {entry.value} is taken already; it needs another name")
        loaded = entry.load()
        known[entry.name] = loaded if isinstance(loaded, Entry) else Entry(loaded)
    return known


def method_named(method: str) -> str:
    """Return a method's name as the catalogue has it, however its words are joined; what is no name stays as it is.

    >>> method_named("clip-diy"), method_named("clip_diy"), method_named("trained/my-detector")
    ('clip_diy', 'clip_diy', 'trained/my-detector')
    """
    known = methods()
    alike = {name.replace("-", "_"): name for name in known}
    return method if method in known else alike.get(method.replace("-", "_"), method)


def entry_of(method: str, variant: str = "default") -> Entry:
    """Return the entry of a method, by its name or the folder of a detector, that has a variant.

    Raises InputError that names the nearest known ones.
    """
    known, name = methods(), method_named(method)
    entry = known[name] if name in known else _trained(method, known)
    if entry.variants and variant not in entry.variants:
        raise unknown_name(f"variant of {method}", variant, entry.variants)
    return entry


def _trained(method: str, known: Mapping[str, Entry]) -> Entry:
    """The entry of the detector in a folder, which needs no other model; refuses what is neither folder nor name."""
    folder = Path(method)
    if (folder / "detector.json").is_file():
        return Entry(
            lambda m, s: detector.Detector(*detector.open_detector(folder, m.device), s),
            detector.VARIANTS,
            needs=(),
            cards=(detector.card_of(folder),),
        )
    if method and (folder.is_dir() or method != folder.name):
        raise InputError(
            f"expected a method's name, or a folder with detector.json as `annofree train detector` writes it, got {method}"
        )
    raise unknown_name("method", method, known)


def build(method: str, models: Models, variant: str = "default", changes: Mapping[str, Any] | None = None) -> Any:
    """Make a method of models at hand; ``changes`` replace settings of the variant by name, nested ones too.

    The variant ``default`` has the settings that were chosen with the models of the preset, where there are any.
    Raises InputError for an unknown method, variant or setting, and names the nearest known one.
    """
    entry = entry_of(method, variant)
    if not entry.variants:
        if changes:
            raise InputError(f"expected no changed settings for {method}, which has none known here, got {', '.join(changes)}")
        return entry.build(models, variant)
    chosen = tuned(models.preset.name, method_named(method)).settings if variant == "default" else {}
    return entry.build(models, changed(changed(entry.variants[variant], chosen), changes or {}))


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Replace fields of a settings dataclass, and of settings within it, by name.

    Raises InputError for a name that is no setting, for a value of another type than the setting has, and for one that is none
    of the words which the setting may be.
    """
    known, hints = {f.name for f in fields(settings)}, get_type_hints(type(settings))
    for name, value in changes.items():
        if name not in known:
            raise unknown_name("setting", name, known)
        words = _words(hints[name])
        if words and isinstance(value, str) and value not in words:
            raise unknown_name(f"value of {name}", value, words)
        check_type(name, value, hints[name], "the settings")
    nested = {k: changed(getattr(settings, k), v) for k, v in changes.items() if isinstance(v, Mapping)}
    return replace(settings, **{**changes, **nested})


def _words(hint: Any) -> tuple[str, ...]:
    """The words that a setting may be, none where it may be any text."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if str in options:
        return ()
    return tuple(word for option in options if get_origin(option) is Literal for word in get_args(option))


class LoadOptions(TypedDict, total=False):
    """What ``load`` may be told beside the method, as it describes it."""

    models: str
    variant: str
    device: str
    objectness: str
    precision: str
    settings: Mapping[str, Any] | None
    policy: str | Mapping[str, Any]
    distractors: Sequence[str]


@overload
def load(method: InstanceMethod = "zip", **options: Unpack[LoadOptions]) -> Segmenter: ...
@overload
def load(method: SemanticMethod, **options: Unpack[LoadOptions]) -> SemanticSegmenter: ...
@overload
def load(method: DualMethod, **options: Unpack[LoadOptions]) -> DualSegmenter: ...
@overload
def load(method: str, **options: Unpack[LoadOptions]) -> Any: ...
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
    distractors: Sequence[str] = (),
) -> Any:
    """Make a method ready to use, by name or by the folder of a trained detector.

    ``objectness`` is the source of the map that says where things are, for CLIP-DIY, ``precision`` what CLIP's image tower
    computes in, and ``settings`` replace those of the variant by name, nested ones too.  ``policy`` says which instances are
    handed over: ``all`` that are ranked, ``answer``, or changes of the preset's policy by name; ``distractors`` then compete
    with the names, beside the preset's own.

    What is not on this machine is downloaded first.  Raises InputError for an unknown method, variant, preset, model, device,
    source or setting, and names the nearest known one; MissingError when weights are neither here nor to be had.
    """
    entry = entry_of(method, variant)
    parts = Models(models, device, objectness=objectness, precision=precision)
    parts.fetch(entry.roles(parts))
    return decided(build(method, parts, variant, settings), method, parts, policy, distractors)


def decided(method: Any, name: str, models: Models, policy: str | Mapping[str, Any], distractors: Sequence[str] = ()) -> Any:
    """A method by its object and name under a policy: ``all``, ``answer``, or changes of the preset's policy.

    Raises InputError for another policy.
    """
    if isinstance(policy, str) and policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    if policy == "all":
        return method
    changes = {} if isinstance(policy, str) else dict(policy)
    if "clip" not in entry_of(name).needs:  # whose candidates nobody can look at
        changes = {"verify": False, "calibration": None, **changes}
    return answering(method, method_named(name), models, changes, distractors)
