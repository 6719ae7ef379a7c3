"""The CLIP that embeds whole images for an index, and names for a search in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.protocols import VisionLanguage

__all__ = ["load_clip"]


def load_clip(spec: str, device: str, use: dict[str, Any]) -> VisionLanguage:
    """Load a CLIP by the name of its card, or that which gives a preset its clues, and override some of its ``use``.

    Raises InputError for an unknown name and for a model that is no CLIP, MissingError without its weights.
    """
    from annofree.hub.download import fetch
    from annofree.hub.presets import find_preset, list_presets
    from annofree.hub.store import find_card

    if spec in list_presets() or "+" in spec:
        preset = find_preset(spec)
        card, use = preset.find_cards()["clip"], {**preset.use.get("clip", {}), **use}
    else:
        card = find_card(spec)
    if card.kind != "clip":
        raise InputError(f"expected a CLIP, such as openai-vit-l-14-336, or a preset, got {card.name}, a {card.kind}")
    from annofree.features.clip import Clip
    from annofree.methods.components import resolve_device

    place = resolve_device(device)
    (local,) = fetch([card], spec=spec, hint="for the emoji scenes --models tiny is bundled" if spec == "fast" else "")
    return Clip(local.folder, place, card=local.card, use=use)
