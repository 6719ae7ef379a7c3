"""All that is known of a model, or what a preset holds and how methods are set with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annofree.hub.cards import Card

__all__ = ["ModelDetails", "show_model"]


@dataclass(frozen=True)
class ModelDetails:
    """Details of models and, where they were named by a preset, what it is for and the settings that belong to it."""

    models: tuple[Mapping[str, Any], ...]
    preset: str | None = None
    about: str = ""
    use: Mapping[str, Any] | None = None
    settings: Mapping[str, Mapping[str, Any]] | None = None

    def as_dict(self) -> Mapping[str, Any]:
        """Return the details as plain values: those of the one model, or the preset with those of all of its models."""
        if self.preset is None:
            return self.models[0]
        about = {"preset": self.preset, "about": self.about, "use": self.use, "settings": self.settings}
        return about | {"models": list(self.models)}


def show_model(name: str) -> ModelDetails:
    """Return all that is known of a model, or what a preset holds; raises InputError for an unknown name.

    >>> show_model("tiny-sam").models[0]["tier"]
    "S2: class-agnostic masks, as SAM's"
    """
    from annofree.hub.catalogue import find_cards
    from annofree.hub.presets import list_presets

    models, preset = tuple(_details(card) for card in find_cards([name])), list_presets().get(name)
    if preset is None:
        return ModelDetails(models)
    return ModelDetails(models, name, preset.about, preset.use, _settings(name))


def _settings(preset: str) -> dict[str, dict[str, Any]]:
    """What was chosen with the models of a preset, by method, and on what."""
    from annofree.methods.policies import resolve_policy
    from annofree.methods.tuning import find_tuning, list_tuned_methods

    methods = {name: (find_tuning(preset, name), resolve_policy(preset, name)) for name in list_tuned_methods(preset)}
    told = {
        name: {
            **own.settings,
            **({"chosen on": own.chosen_on} if own.chosen_on else {}),
            "floor": policy.floor,
            "calibrated on": policy.calibration.fitted_on
            if policy.calibration
            else "nothing: scores rank, but are no probabilities",
        }
        for name, (own, policy) in methods.items()
    }
    return told or {"all methods": {"variant default": "as published; no floor, no calibration, nothing chosen on images"}}


def _details(card: Card) -> dict[str, Any]:
    from annofree.hub.cards import TIERS
    from annofree.hub.download import find_present
    from annofree.hub.store import Seen

    seen, folder = Seen.of(card.name), find_present(card)
    files = {name: sha or seen.find_sha256(name) for name, sha in card.files.items()}
    pinned = "" if card.pinned or not card.hub else "not pinned"
    if seen.renewed:
        pinned, files = f"{seen.revision} (renewed here)", {name: seen.find_sha256(name) for name in files}
    elif pinned and seen.revision:
        pinned = f"{seen.revision} (since its first fetch)"
    return asdict(card) | {
        "tier": f"{card.tier}: {TIERS[card.tier]}",
        "files": files,
        "pinned": pinned,
        "folder": str(folder) if folder else None,
    }
