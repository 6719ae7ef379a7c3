"""The models that methods are made of: a preset, or a spec such as ``openai-rn50+sam-b``, loaded part by part."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from annofree.detectors.config import OBJECT
from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.hub.cards import Card
from annofree.hub.download import Local, fetch, find_present
from annofree.hub.presets import DEFAULT, Role, find_preset
from annofree.methods.dense.clip_diy import Parts, build_objectness
from annofree.methods.dense.groupvit import Grouper
from annofree.methods.dense.reco_references import ReferenceArchive
from annofree.methods.dense.tcl import TextMasker
from annofree.methods.detector import DetectorInfo
from annofree.methods.namedmask import NamedMaskNetwork
from annofree.methods.registry import OBJECTNESS_ROLES, PRECISIONS, find_objectness_roles
from annofree.protocols import DetectorBackend, Masker, Objectness, Segmenter, SelfSupervised, VisionLanguage

if TYPE_CHECKING:
    from annofree.methods.zutis import Proposer

__all__ = ["Models", "resolve_device"]

_EXAMPLES: dict[Role, tuple[str, str]] = {
    "dino": ("a DINO", "dino-vit-s-8"),
    "saliency": ("a saliency head", "found"),
    "zutis": ("a trained segmenter", "zutis-coco-vit-b-16"),
    "detector": ("a trained detector", ""),
}
"""What a role that not every preset has is called, and a model for it."""


def resolve_device(name: str) -> str:
    """Return a device that torch knows, a GPU for ``auto`` where there is one; raises InputError for others.

    >>> resolve_device("cpu")
    'cpu'
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=name).device)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"expected a device such as auto, cpu or cuda, got {name!r}: {str(problem).splitlines()[0]}") from None


class Models:
    """The parts of a preset or spec on a device; each is loaded when it is first asked for.

    ``objectness`` names the source of the map that says where things are; ``segmenter`` and ``classes`` are what the source
    ``instances`` asks.  ``precision`` is what the image encoders of CLIP and SAM compute in: bfloat16 is faster where the
    processor knows it.  Raises InputError for an unknown preset, model, device, source or precision; each part raises
    MissingError when its weights are neither on this machine nor to be had, InputError when the preset has no such part.
    """

    def __init__(
        self, spec: str = DEFAULT, device: str = "auto", *, objectness: str = "found", precision: str = "float32"
    ) -> None:
        if precision not in PRECISIONS:
            raise build_unknown_error("precision", precision, PRECISIONS)
        find_objectness_roles(objectness)
        self.preset, self.device, self.source = find_preset(spec), resolve_device(device), objectness
        self.precision = precision
        self.segmenter: Segmenter | None = None
        self.classes: Any = "object"

    def with_parts(self, **parts: Any) -> Models:
        """Return these models with some parts in the place of their own: clip, sam, dino, zutis, detector, objectness, ..."""
        twin = copy.copy(self)
        if parts.keys() & {"dino", "detector", "segmenter", "classes", "source"}:
            vars(twin).pop("objectness", None)  # it is made of these
        for name, part in parts.items():
            setattr(twin, name, part)
        return twin

    def with_cards(self, **cards: str) -> Models:
        """Return the models of this preset with other cards in some roles, as those cards say that they are used."""
        twin = Models(self.preset.name, self.device, objectness=self.source, precision=self.precision)
        use = {role: own for role, own in self.preset.use.items() if role not in cards}
        twin.preset = replace(self.preset, use=use, **cards)
        return twin

    def fetch(self, roles: Iterable[Role]) -> None:
        """Download what is missing for some roles, at once; raises MissingError naming all that is not to be had."""
        self._local(tuple(roles))

    @cached_property
    def clip(self) -> VisionLanguage:
        """The CLIP, or a pair of them: one for clues, one for boundaries."""
        from annofree.features.paired_clip import PairedClip

        parts = self._local(("clip", "boundaries"))
        clues = self._clip("clip", parts["clip"])
        return PairedClip(clues, self._clip("boundaries", parts["boundaries"])) if "boundaries" in parts else clues

    def _clip(self, role: Role, local: Local) -> VisionLanguage:
        from annofree.features.clip import Clip

        dtype = getattr(torch, self.precision)
        return Clip(local.folder, self.device, card=local.card, dtype=dtype, use=self.preset.use.get(role))

    @cached_property
    def sam(self) -> Masker:
        """The promptable masker."""
        from annofree.features.sam import Sam

        local = self._local(("sam",))["sam"]
        return Sam(local.folder, self.device, card=local.card, encoder=getattr(torch, self.precision))

    @cached_property
    def dino(self) -> SelfSupervised:
        """The self-supervised vision transformer."""
        from annofree.features.dino import Dino

        local = self._need("dino")["dino"]
        return Dino(local.folder, self.device, card=local.card)

    @cached_property
    def zutis(self) -> Proposer:
        """The network that was trained to propose masks."""
        from annofree.features.zutis_weights import load_zutis

        local = self._need("zutis")["zutis"]
        return load_zutis(local.folder, self.device, card=local.card)

    @cached_property
    def tcl(self) -> TextMasker:
        """The decoder that captions taught, on the CLIP of these models."""
        from annofree.features.text_supervised.tcl import load_tcl

        local = self._need("tcl")["tcl"]
        return load_tcl(local.folder, self.clip, card=local.card)

    @cached_property
    def groupvit(self) -> Grouper:
        """The network that groups patches and was taught by captions."""
        from annofree.features.text_supervised.groupvit import GroupVit

        local = self._need("groupvit")["groupvit"]
        return GroupVit(local.folder, self.device, card=local.card)

    @cached_property
    def archive(self) -> ReferenceArchive:
        """The images of each name that ReCo goes by; none come with a preset."""
        raise InputError(
            "expected an archive of images for the method reco, got none; make one with `annofree index` and `annofree "
            "retrieve`, and give its folder as the method"
        )

    @cached_property
    def namedmask(self) -> NamedMaskNetwork:
        """The network that was trained on an archive's names; none comes with a preset."""
        raise InputError(
            "expected a trained NamedMask for the method namedmask, got none; train one with `annofree train namedmask`, and "
            "give its folder as the method"
        )

    @cached_property
    def detector(self) -> tuple[DetectorBackend, DetectorInfo]:
        """The network that was trained on names, and what it is."""
        from annofree.methods.detector import open_detector

        local = self._need("detector")["detector"]
        return open_detector(local.folder, self.device, local.card)

    @cached_property
    def objectness(self) -> Objectness | None:
        """Where things are, by the source that was chosen; None for the source ``none``."""
        roles = find_objectness_roles(self.source)
        places = self._need(*(role for role in roles if role in _EXAMPLES))
        head = _weights(places["saliency"]) if "saliency" in roles else None
        segmenter, classes = self._find_finder()
        parts = Parts(self.dino if "dino" in roles else None, head, segmenter, classes)
        return build_objectness(self.source if self.source in OBJECTNESS_ROLES else "instances", parts)

    def _find_finder(self) -> tuple[Segmenter | None, Any]:
        """Whose masks are the objectness, where it is made of masks, and what that is asked for."""
        if self.source == "maskcut":
            from annofree.methods.class_agnostic.maskcut import MaskCut

            return MaskCut(self.dino), OBJECT
        if self.source == "cutler":
            return _ask_all(*self.detector)
        if self.source in OBJECTNESS_ROLES:
            return self.segmenter, self.classes
        if (Path(self.source) / "detector.json").is_file():
            from annofree.methods.detector import open_detector

            return _ask_all(*open_detector(Path(self.source), self.device))
        from annofree.methods.class_agnostic.stored_masks import StoredInstances, StoredMasks

        return StoredInstances(StoredMasks(Path(self.source))), OBJECT

    def _need(self, *roles: Role) -> dict[Role, Local]:
        """Find the parts of some roles, but for those that were replaced; raises InputError naming all that are not there."""
        wanted = tuple(role for role in roles if role not in vars(self))
        lacking = [role for role in wanted if role not in self.preset.select_cards(wanted)]
        if lacking:
            what = " and ".join(_EXAMPLES[role][0] for role in lacking)
            if "detector" in lacking:
                raise InputError(
                    f"expected models with {what}, got {self.preset.name}, which has none; train one with `annofree train "
                    "detector`, and give its folder as the method, or as the objectness"
                )
            if "zutis" in lacking:  # no other model makes up for it: it has to fit the CLIP
                raise InputError(f"expected models with {what}, such as the preset {DEFAULT}, got {self.preset.name}")
            spec = "+".join([*(card.name for card in self.preset.find_cards().values()), *(_EXAMPLES[r][1] for r in lacking)])
            other = "; or choose another objectness, such as instances or none" if self.source in _OF_DINO else ""
            raise InputError(f"expected models with {what}, such as {spec}, got {self.preset.name}{other}")
        return self._local(wanted)

    def _local(self, roles: tuple[Role, ...]) -> dict[Role, Local]:
        cards = self.preset.select_cards(roles)
        ours = all(getattr(self.preset, role) is not None for role in cards)  # and not brought by a method
        hint = "for the emoji scenes --models tiny is bundled" if self.preset.name == DEFAULT and ours else ""
        if "saliency" in cards:
            _check_here(cards["saliency"], "the objectness", "or choose --objectness found-bkg, which needs no head")
        if "zutis" in cards:
            _check_here(cards["zutis"], "the method zutis", "or train one with `annofree train zutis`")
        for role, other in _OTHERS.items():
            if role in cards:
                _check_here(cards[role], f"the method {role}", other)
        spec = self.preset.name if ours else ""
        return dict(zip(cards, fetch(list(cards.values()), spec=spec, hint=hint), strict=True))


_OTHERS: dict[Role, str] = {
    "tcl": "or take a method of CLIP alone, such as maskclip",
    "groupvit": "or take groupvit-gcc-redcaps, which is on a hub",
}
_OF_DINO = tuple(name for name, roles in OBJECTNESS_ROLES.items() if "dino" in roles)


def _ask_all(network: DetectorBackend, origin: DetectorInfo) -> tuple[Segmenter, Any]:
    """A detector, and all that it knows."""
    from annofree.methods.class_agnostic.object_detector import build_detector

    return build_detector(network, origin), origin.names


def _check_here(card: Card, who: str, other: str) -> None:
    if not card.hub and find_present(card) is None:
        raise MissingError(f"{who} needs {card.name}, which is on no hub: {card.explain_adding()}, {other}")


def _weights(local: Local) -> Path:
    return next(local.folder / name for name in local.card.files if name.endswith(".safetensors"))
