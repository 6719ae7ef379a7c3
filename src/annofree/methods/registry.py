"""Which methods there are: their names, tasks, variants, the roles of the models they need, and how each is built.

Nothing heavy is imported until a method is built, so that a wrong name is refused at once.  Other packages add methods through
the entry-point group ``annofree.methods``, each an ``Entry`` or a function of models and settings; a name taken twice is an
error.  The folder of a detector that was trained is a method, too, that of a NamedMask, and that of an archive, whose images
ReCo looks for; and so are stored masks, of a run or in a COCO file: they are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from annofree.errors import InputError, build_unknown_error
from annofree.hub.presets import DEFAULT, Role
from annofree.methods.tuning import find_tuning, read_calibration, read_policy
from annofree.methods.variants import change_settings

if TYPE_CHECKING:
    from annofree.hub.cards import Card
    from annofree.methods.components import Models

__all__ = [
    "METHODS",
    "OBJECTNESS_ROLES",
    "PRECISIONS",
    "TASKS",
    "Entry",
    "MethodInfo",
    "Task",
    "Variants",
    "find_method",
    "find_objectness_roles",
    "is_class_agnostic",
    "list_methods",
    "list_objectness_cards",
    "locate_detector",
    "resolve_method_name",
    "split_methods",
]

Task = Literal["instance", "semantic"]
"""What a method may be asked for."""

TASKS = ("instance", "semantic", "panoptic")
"""What a run can find; panoptic maps are made of the answers to both others."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What the image encoders of CLIP and SAM can compute in."""

OBJECTNESS_ROLES: dict[str, tuple[Role, ...]] = {
    "found": ("dino", "saliency"),
    "found-bkg": ("dino",),
    "tokencut": ("dino",),
    "maskcut": ("dino",),
    "cutler": ("detector",),
    "instances": ("clip", "boundaries", "sam"),
    "none": (),
}
"""What each source of objectness is made of."""

_CONFIG = "detector.json"  # that a detector's folder has
_NAMEDMASK = "namedmask.json"  # that of a trained NamedMask
_ARCHIVE = "archive.json"  # that an archive's folder has


class Variants(Mapping[str, Any]):
    """The ``VARIANTS`` of a method's module by ``names`` known beforehand; the module is imported when one is looked up."""

    def __init__(self, module: str, *names: str) -> None:
        self.module, self.names = module, names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return import_module(self.module).VARIANTS[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Entry:
    """One method of the registry."""

    # makes the method of models and of the settings of a variant
    build: Callable[[Models, Any], Any]
    # settings by the name of the variant; none where the method has no settings
    variants: Mapping[str, Any] = field(default_factory=dict)
    # roles of the models that are downloaded before it is built
    needs: tuple[Role, ...] = ("clip", "boundaries", "sam")
    # what it can be asked for
    tasks: tuple[Task, ...] = ("instance",)
    # whether it takes a map that says where objects are
    objectness: bool = False
    # roles of the models that it takes where the preset has them
    takes: tuple[Role, ...] = ()
    # cards of weights that it brings itself
    cards: tuple[Card, ...] = ()
    # whether it finds things without names, so that no class need be asked for
    class_agnostic: bool = False
    # whether what it finds was stored before, and so does not follow an image that is changed
    stored: bool = False
    # whether its instances are no more than the regions of its label maps: it is asked for them where no other method is
    regions: bool = False
    # of a method that is called by a place: the name by which what was chosen for models is looked up
    name: str = ""

    def list_roles(self, objectness: str, settings: Mapping[str, Any] = MappingProxyType({})) -> tuple[Role, ...]:
        """The roles of the models it needs, with SAM where ``settings`` redraw, and of an objectness where it takes one."""
        sam: tuple[Role, ...] = ("sam",) if settings.get("redraw", "none") != "none" else ()
        return (*self.needs, *sam, *(find_objectness_roles(objectness) if self.objectness else ()))


def _zip(models: Models, settings: Any) -> Any:
    from annofree.methods.zip import Zip

    return Zip(models.clip, models.sam, settings)


def _consensus(models: Models, settings: Any) -> Any:
    """With the detector of the models, where they have one, and the calibration of their preset."""
    from annofree.methods.consensus import Consensus

    if settings.calibration is None:
        settings = replace(settings, **read_calibration(models.preset.name, "consensus"))
    if models.preset.detector is None and "detector" not in vars(models):
        return Consensus(models.clip, models.sam, settings)
    network, origin = models.detector
    return Consensus(models.clip, models.sam, settings, network, origin.weights)


def _open_vocabulary(models: Models, settings: Any) -> Any:
    """Names compete by the scale of the preset unless the settings have another."""
    from annofree.detections.verification import Naming
    from annofree.methods.open_vocabulary import OpenVocabulary

    naming = settings.naming or Naming(read_policy(models.preset.name, "open_vocabulary")["scale"])
    return OpenVocabulary(models.clip, *models.detector, replace(settings, naming=naming))


def _sam_clip(models: Models, settings: Any) -> Any:
    """Candidates of SAM's everything mode are found by what was chosen for the models, where anything was."""
    from annofree.methods.class_agnostic.sam_everything import VARIANTS
    from annofree.methods.sam_clip import SamClip

    tuned = find_tuning(models.preset.name, "sam_everything").settings if settings.candidates == "default" else {}
    everything = change_settings(VARIANTS["default"], tuned) if tuned else None
    return SamClip(models.clip, models.sam, settings, everything)


def _clip_diy(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.clip_diy import ClipDiy

    return ClipDiy(models.clip, models.objectness, settings)


def _maskclip(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.maskclip import MaskClip

    return MaskClip(models.clip, settings)


def _clip_surgery(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.clip_surgery import ClipSurgery

    return ClipSurgery(models.clip, settings)


def _patch_cosine(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.patch_cosine import PatchCosine

    return PatchCosine(models.clip, settings)


def _tcl(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.tcl import Tcl

    return Tcl(models.tcl, models.clip, settings)


def _groupvit(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.groupvit import GroupVitMethod

    return GroupVitMethod(models.groupvit, settings)


def _proxy_clip(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.proxy_clip import ProxyClip

    return ProxyClip(models.clip, models.dino, settings)


def _region_clip(models: Models, settings: Any) -> Any:
    """With the DINO of the models, where they have one, and regions of SAM as they were chosen for them, where anything was."""
    from annofree.methods.class_agnostic.sam_everything import VARIANTS
    from annofree.methods.dense.region_clip import RegionClip

    tuned = find_tuning(models.preset.name, "sam_everything").settings if settings.candidates == "default" else {}
    everything = change_settings(VARIANTS["default"], tuned) if tuned else None
    dino = models.dino if models.preset.dino is not None or "dino" in vars(models) else None
    return RegionClip(models.clip, models.sam, dino, settings, everything)


def _zutis(models: Models, settings: Any) -> Any:
    from annofree.methods.zutis import Zutis

    return Zutis(models.zutis, models.clip, settings)


def _reco(models: Models, settings: Any) -> Any:
    from annofree.methods.dense.reco import Reco

    return Reco(models.clip, models.dino, models.archive, settings)


def _namedmask(models: Models, settings: Any) -> Any:
    from annofree.methods.namedmask import NamedMask

    return NamedMask(models.namedmask, settings)


def _detector(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.object_detector import build_detector

    return build_detector(*models.detector, settings)


def _maskcut(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.maskcut import MaskCut

    return MaskCut(models.dino, settings)


def _discovery(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.discovery import Discovery

    return Discovery(models.dino, settings)


def _maskdistill(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.maskdistill import MaskDistill

    return MaskDistill(models.dino, settings)


def _fragments(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.fragments import ZipFragments

    return ZipFragments(models.clip, models.sam, settings)


def _named_masks(place: Path, models: Models, settings: Any) -> Any:
    """Names for the masks of a place, which compete by the scale of the preset unless the settings have another."""
    from annofree.detections.verification import Naming
    from annofree.methods.class_agnostic.named_masks import NamedMasks
    from annofree.methods.class_agnostic.stored_masks import StoredMasks

    scale = read_policy(models.preset.name, "named_masks")["scale"]
    settings = replace(settings, naming=settings.naming or Naming(scale))
    sam = None if settings.refine == "none" else models.sam
    return NamedMasks(models.clip, StoredMasks(place), settings, sam)


def _mask_crops(models: Models, settings: Any) -> Any:
    """Names for the masks of an objectness, which compete by the scale of the preset unless the settings have another."""
    from annofree.detections.verification import Naming
    from annofree.methods.class_agnostic.mask_crops import MaskCrops

    settings = replace(settings, naming=settings.naming or Naming(read_policy(models.preset.name, "mask_crops")["scale"]))
    return MaskCrops(models.clip, models.objectness, settings, None if settings.refine == "none" else models.sam)


def _sam_everything(models: Models, settings: Any) -> Any:
    from annofree.methods.class_agnostic.sam_everything import SamEverything

    return SamEverything(models.sam, settings)


def _variants(method: str, *names: str) -> Variants:
    return Variants(f"annofree.methods.{method}", *names)


_BOTH: tuple[Task, ...] = ("instance", "semantic")
_DETECTOR = _variants("detector", "default", "all", "apart")
_RECO = _variants("dense.reco", "default", "official", "pamr")
_NAMEDMASKS = _variants("namedmask", "default")
_NAMED = _variants("class_agnostic.named_masks", "default", "box", "box+point")

METHODS: dict[str, Entry] = {
    "zip": Entry(_zip, _variants("zip", "default", "paper", "official")),
    "consensus": Entry(_consensus, _variants("consensus", "default"), tasks=_BOTH, takes=("detector",)),
    "open_vocabulary": Entry(_open_vocabulary, _variants("open_vocabulary", "default"), ("clip", "detector")),
    "sam_clip": Entry(
        _sam_clip, _variants("sam_clip", "default", "paper", "crops", "masked", "everything", "official"), ("clip", "sam")
    ),
    "clip_diy": Entry(
        _clip_diy, _variants("dense.clip_diy", "default", "paper", "official"), ("clip",), _BOTH, objectness=True, regions=True
    ),
    "mask_crops": Entry(
        _mask_crops, _variants("class_agnostic.mask_crops", "default", "paper"), ("clip",), _BOTH, objectness=True
    ),
    "maskclip": Entry(
        _maskclip,
        _variants("dense.maskclip", "default", "official", "denoised", "smoothed", "pamr", "zutis"),
        ("clip",),
        _BOTH,
    ),
    "clip_surgery": Entry(
        _clip_surgery, _variants("dense.clip_surgery", "default", "official", "classes", "pamr"), ("clip",), _BOTH
    ),
    "patch_cosine": Entry(_patch_cosine, _variants("dense.patch_cosine", "default", "pamr"), ("clip",), _BOTH),
    "tcl": Entry(_tcl, _variants("dense.tcl", "default", "official", "plain", "all-named"), ("clip", "tcl"), _BOTH),
    "groupvit": Entry(_groupvit, _variants("dense.groupvit", "default", "official", "all-named"), ("groupvit",), _BOTH),
    "proxy_clip": Entry(
        _proxy_clip, _variants("dense.proxy_clip", "default", "paper", "keys", "pamr"), ("clip", "dino"), _BOTH
    ),
    "region_clip": Entry(
        _region_clip,
        _variants("dense.region_clip", "default", "mean", "rough"),
        ("clip", "sam"),
        _BOTH,
        takes=("dino",),
    ),
    "zutis": Entry(_zutis, _variants("zutis", "default", "proposals", "official", "paper"), ("clip", "zutis"), _BOTH),
    "reco": Entry(_reco, _RECO, ("clip", "dino"), _BOTH),
    "namedmask": Entry(_namedmask, _NAMEDMASKS, (), _BOTH),
    "detector": Entry(_detector, _DETECTOR, ("detector",)),
    "maskcut": Entry(_maskcut, _variants("class_agnostic.maskcut", "default", "cells"), ("dino",), class_agnostic=True),
    "discovery": Entry(
        _discovery,
        _variants("class_agnostic.discovery", "default", "tokencut", "lost", "dss", "dino-seg"),
        ("dino",),
        class_agnostic=True,
    ),
    "maskdistill": Entry(_maskdistill, _variants("class_agnostic.maskdistill", "default"), ("dino",), class_agnostic=True),
    "fragments": Entry(_fragments, _variants("class_agnostic.fragments", "default"), class_agnostic=True),
    "sam_everything": Entry(
        _sam_everything,
        _variants("class_agnostic.sam_everything", "default", "official", "paper", "paper-nms", "fast"),
        ("sam",),
        class_agnostic=True,
    ),
}
"""Method name to its entry."""


@dataclass(frozen=True)
class MethodInfo:
    """What is known of a method."""

    name: str
    # what it can be asked for: instance, semantic
    tasks: tuple[str, ...]
    # its named settings
    variants: tuple[str, ...]
    # roles of the models that it needs
    models: tuple[str, ...]
    # whether it finds things without names
    class_agnostic: bool = False


def list_methods() -> list[MethodInfo]:
    """List all methods, those of other packages among them.

    >>> [method.name for method in list_methods() if "semantic" in method.tasks][:2]
    ['consensus', 'clip_diy']
    """
    return [
        MethodInfo(name, tuple(e.tasks), tuple(e.variants), tuple(e.needs), e.class_agnostic)
        for name, e in _registered().items()
    ]


def resolve_method_name(method: str) -> str:
    """Return a method's name as the registry has it, however its words are joined; what is no name stays as it is.

    >>> resolve_method_name("clip-diy"), resolve_method_name("clip_diy"), resolve_method_name("trained/my-detector")
    ('clip_diy', 'clip_diy', 'trained/my-detector')
    """
    known = _registered()
    alike = {name.replace("-", "_"): name for name in known}
    return method if method in known else alike.get(method.replace("-", "_"), method)


def find_method(method: str, variant: str = "default") -> Entry:
    """Return the entry of a method, by its name, the folder of a detector or the place of stored masks, that has a variant.

    Raises InputError that names the nearest known ones.
    """
    known, name = _registered(), resolve_method_name(method)
    entry = known[name] if name in known else _at_place(method, variant, known)
    if entry.variants and variant not in entry.variants:
        raise build_unknown_error(f"variant of {method}", variant, entry.variants)
    return entry


def find_objectness_roles(source: str) -> tuple[Role, ...]:
    """The roles of the models that a source of objectness is made of; none for a detector's folder and for stored masks.

    Raises InputError for what is neither a source by name nor such a place.

    >>> find_objectness_roles("found")
    ('dino', 'saliency')
    """
    if source in OBJECTNESS_ROLES:
        return OBJECTNESS_ROLES[source]
    from annofree.methods.class_agnostic.stored_masks import is_stored_masks

    place = Path(source)
    if source and ((place / _CONFIG).is_file() or is_stored_masks(place)):
        return ()
    if source and (place.is_dir() or source != place.name):
        raise InputError(
            f"expected a source of objectness ({', '.join(OBJECTNESS_ROLES)}), or a folder with detector.json, or a run or a "
            f"COCO file whose masks are the objectness, got {source}"
        )
    raise build_unknown_error("objectness source", source, OBJECTNESS_ROLES)


def list_objectness_cards(source: str) -> tuple[Card, ...]:
    """The cards of weights that a source of objectness brings itself: those of a detector in a folder."""
    if source in OBJECTNESS_ROLES or not (Path(source) / _CONFIG).is_file():
        return ()
    from annofree.methods.detector import read_card

    return (read_card(Path(source)),)


def is_class_agnostic(method: str | None, models: str = DEFAULT) -> bool:
    """Whether a method, or all that are joined by +, find things without names; raises InputError for an unknown one.

    ``models`` may be the folder of a detector, as ``locate_detector`` has it.

    >>> is_class_agnostic("maskcut"), is_class_agnostic("zip"), is_class_agnostic(None)
    (True, False, False)
    """
    method, _ = locate_detector(method, models)
    return method is not None and all(find_method(name).class_agnostic for name in split_methods(method))


def locate_detector(method: str | None, models: str) -> tuple[str | None, str]:
    """The method and its models: of the method detector with a detector's folder as models, the folder itself is the method.

    >>> locate_detector("detector", "tiny"), locate_detector("zip", "tiny")
    (('detector', 'tiny'), ('zip', 'tiny'))
    """
    asked = isinstance(method, str) and isinstance(models, str) and resolve_method_name(method) == "detector"
    return (models, DEFAULT) if asked and (Path(models) / _CONFIG).is_file() else (method, models)


def split_methods(method: str) -> list[str]:
    """The methods that are joined by +; a place that is there is one, whatever its name.

    >>> split_methods("zip + clip-diy")
    ['zip', 'clip_diy']
    """
    parts = [method] if Path(method).exists() else method.split("+")
    return [resolve_method_name(part.strip()) for part in parts]


def _registered() -> dict[str, Entry]:
    """The methods of this package and of others."""
    known = dict(METHODS)
    for entry in entry_points(group="annofree.methods"):
        if entry.name in known:
            raise InputError(f"the method {entry.name!r} of {entry.value} is taken already; it needs another name")
        loaded = entry.load()
        known[entry.name] = loaded if isinstance(loaded, Entry) else Entry(loaded)
    # what makes label maps alone finds their regions, too
    maps = {name: entry for name, entry in known.items() if entry.tasks == ("semantic",)}
    return known | {name: replace(entry, tasks=_BOTH, regions=True) for name, entry in maps.items()}


def _at_place(method: str, variant: str, known: Mapping[str, Entry]) -> Entry:
    """The entry of what lies at a place: a detector, or masks to name; refuses what is neither place nor name."""
    from annofree.methods.class_agnostic.stored_masks import is_stored_masks

    place = Path(method)
    if (place / _CONFIG).is_file():
        return _trained(place)
    if (place / _NAMEDMASK).is_file():
        return _trained_namedmask(place)
    if (place / _ARCHIVE).is_file():
        return Entry(partial(_reco_of, place), _RECO, ("clip", "dino"), _BOTH, name="reco")
    if method and is_stored_masks(place):
        needs: tuple[Role, ...] = ("clip",) if variant == "default" else ("clip", "sam")
        return Entry(partial(_named_masks, place), _NAMED, needs, stored=True)
    if method and (place.is_dir() or method != place.name):
        raise InputError(
            "expected a method's name, or a folder with detector.json as `annofree train detector` writes it, with "
            f"namedmask.json or with an archive's archive.json, or a run or a COCO file whose masks are named, got {method}"
        )
    raise build_unknown_error("method", method, known)


def _trained(folder: Path) -> Entry:
    """The entry of the detector in a folder, which needs no other model."""
    from annofree.detectors.checkpoint import read_config
    from annofree.methods.class_agnostic.object_detector import build_detector
    from annofree.methods.detector import open_detector, read_card

    return Entry(
        lambda m, s: build_detector(*open_detector(folder, m.device), s),
        _DETECTOR,
        needs=(),
        cards=(read_card(folder),),
        class_agnostic=read_config(folder).agnostic,
    )


def _trained_namedmask(folder: Path) -> Entry:
    """The entry of the NamedMask in a folder, which needs no other model."""
    from annofree.methods.detector import read_card
    from annofree.methods.namedmask import open_namedmask

    return Entry(
        lambda m, s: _namedmask(m.with_parts(namedmask=open_namedmask(folder, m.device)), s),
        _NAMEDMASKS,
        needs=(),
        tasks=_BOTH,
        cards=(read_card(folder),),
    )


def _reco_of(folder: Path, models: Models, settings: Any) -> Any:
    """ReCo by the images of an archive's folder."""
    from annofree.methods.dense.reco_references import open_references

    return _reco(models.with_parts(archive=open_references(folder)), settings)
