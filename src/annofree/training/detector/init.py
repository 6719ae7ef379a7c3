"""Where a detector's training starts from: another detector, the weights of a ResNet, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from annofree.detectors.backbones import load_backbone
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import CONFIG, WEIGHTS, read_config, read_state, transfer
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError, MissingError
from annofree.hub.cards import Card, hash_file
from annofree.hub.download import fetch
from annofree.hub.store import find_card
from annofree.training.detector.recipe import DetectorRecipe, is_place

__all__ = ["Start", "list_class_layers", "read_initial", "start_network"]


class Start(NamedTuple):
    """A network ready to learn, what there is to ``say`` of its weights, and their ``origin`` (name, hashes, tier)."""

    network: DetectorNetwork
    say: str
    origin: Mapping[str, Any]


def start_network(recipe: DetectorRecipe, names: tuple[str, ...]) -> Start:
    """Make the network of a recipe for ``names``; what its ``initial`` does not have is random, by the recipe's seed.

    Raises InputError for weights that do not fit, MissingError for those that are not here and not to be had.
    """
    values = {"kind": "cascade", **recipe.network, "names": names}
    if not recipe.initial:
        return Start(_random(values, recipe.seed), "all weights are random", {})
    place, card = _find_initial(recipe.initial)
    if (place / CONFIG).is_file():
        return _further(recipe, names, place)
    network = _random(values, recipe.seed)
    state, origin = _read_weights(place, card)
    return Start(network, f"{origin['name']}: {load_backbone(network, state)}", origin)


def _random(values: Mapping[str, Any], seed: int) -> DetectorNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(DetectorConfig.of(values))


def _further(recipe: DetectorRecipe, names: tuple[str, ...], folder: Path) -> Start:
    """Go on with a detector; for other names its class layers are made anew."""
    before = read_config(folder)
    network = _random({**asdict(before), **recipe.network, "names": names}, recipe.seed)
    anew = set() if before.names == names else list_class_layers(before)
    taken = transfer(network, {k: v for k, v in read_state(folder / WEIGHTS).items() if k not in anew})
    said = f"{len(taken.loaded)} weights are taken, {len(taken.fresh)} start anew" if taken.fresh else "all weights are taken"
    if before.names != names:
        said = f"it knew {_count(before.names)} and is to learn {_count(names)}, so its class layers are made anew: {said}"
    return Start(network, f"{folder.name}: {said}", _origin_of(folder))


def _count(names: tuple[str, ...]) -> str:
    return f"{names[0]!r} alone" if len(names) == 1 else f"{len(names)} names"


def list_class_layers(config: DetectorConfig) -> set[str]:
    """The weights whose size depends on the number of names."""
    with torch.device("meta"):
        own, more = (
            build_network(replace(config, names=config.names + new)).state_dict() for new in ((), (_new(config.names),))
        )
    return {name for name, weight in own.items() if weight.shape != more[name].shape}


def _new(names: tuple[str, ...]) -> str:
    return max(names, key=len) + "+"


def _origin_of(folder: Path) -> dict[str, Any]:
    if (folder / "card.json").is_file():
        return Card.read(folder).to_provenance()
    return {"name": folder.name, "sha256": {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}}


def read_initial(initial: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict that a file, a model's folder or its name stands for, and its origin.

    Raises InputError for a model of several files, MissingError for what is not here and not to be had.
    """
    return _read_weights(*_find_initial(initial))


def _find_initial(initial: str) -> tuple[Path, Card | None]:
    """Where the weights are that a path or a model's name stands for, and the card of a name; raises MissingError for none."""
    place = Path(initial)
    if place.exists():
        return place, None
    if is_place(Path(), initial):
        raise MissingError(f"expected a detector's folder or the weights of a ResNet at {initial}; there is nothing")
    card, folder = fetch([find_card(initial)])[0]
    return folder, card


def _read_weights(place: Path, card: Card | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a file or of a model's folder, whose card is in it unless it is given, and its origin."""
    if place.is_file():
        return read_state(place), {"name": place.name, "sha256": {place.name: hash_file(place)}}
    card = card or Card.read(place)
    held = [place / name for name in card.files if name.endswith(".safetensors")]
    if len(held) != 1:
        raise InputError(f"expected one file of weights in the model {card.name}, got {len(held)}; give the file itself")
    return read_state(held[0]), card.to_provenance()
