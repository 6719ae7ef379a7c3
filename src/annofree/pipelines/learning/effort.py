"""How much there is to do, and how much of it fits the minutes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from annofree.errors import InputError
from annofree.hub.cards import Card
from annofree.hub.store import find_card
from annofree.methods.tuning import read_asset
from annofree.pipelines.training.scene_stages import merge_settings
from annofree.training.detector.recipe import DetectorRecipe, is_place
from annofree.training.detector.train import fit_detector
from annofree.training.engine.recipe_checks import read_fields

__all__ = ["choose_steps", "list_initial_cards", "measure_pace", "read_recipe"]

_ITS_OWN = ("labels", "images", "out", "name", "agnostic")  # fields that a learning sets by itself
_TRIED = 9  # steps, of which the first three are not counted
_LEAST = 60  # steps of a round, however few the minutes
_SPARE = 0.9  # of the time left


def read_recipe(models: str, config: Path | None) -> dict[str, Any]:
    """The fields of a detector's recipe for the models of a preset; those of a file ``config`` are laid over them.

    Raises InputError for a file that is not there or not TOML, for fields that no recipe has or that a learning sets by
    itself, and for values that do not fit.
    """
    own = read_asset("learn.toml")
    table: Mapping[str, Any] = own.get(models, own["photographs"])
    changes = {} if config is None else _read_changes(config)
    held = merge_settings(table, changes)
    DetectorRecipe(labels=Path("labels"), out=Path("out"), **held)  # before anything is found: it refuses what does not fit
    return held


def list_initial_cards(models: str, config: Path | None) -> list[Card]:
    """The card of the weights that the first round goes on from, none where these are random; arguments as of ``read_recipe``.

    Raises InputError for weights without a card, as nobody knows what they saw.

    >>> [(card.name, card.tier) for card in list_initial_cards("tiny", None)]
    [('tiny-detector', 'S2')]
    """
    initial = str(read_recipe(models, config).get("initial", ""))
    if not initial:
        return []
    if not is_place(Path(), initial):
        return [find_card(initial)]
    if not (Path(initial) / "card.json").is_file():
        raise InputError(f"expected weights with a card, by which tier and licence are known, got {initial}; name a model")
    return [Card.read(Path(initial))]


def _read_changes(config: Path) -> dict[str, Any]:
    held = read_fields(config, DetectorRecipe, ())
    if own := [name for name in _ITS_OWN if name in held]:
        raise InputError(f"expected no {', '.join(own)} in {config}, as a learning sets these by itself; leave them out")
    return held | DetectorRecipe.find_places(config.parent, held)


def measure_pace(recipe: DetectorRecipe, device: str) -> float:
    """Seconds a step takes: the median of six, after three to warm up, of a training that is thrown away."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        tried = replace(recipe.rescaled(_TRIED), out=Path(folder) / "pace", checkpoint_every=10**6, sample_every=0)
        fit_detector(
            tried, device=device, on_progress=lambda done, total: times.append(time.monotonic()), say=lambda text: None
        )
    return float(np.median(np.diff(times)[3:]))


def choose_steps(recipe: DetectorRecipe, pace: float, seconds: float) -> int:
    """As many steps as fit some seconds at a pace, at most the recipe's, at least 60 or the recipe's where it has less.

    >>> choose_steps(DetectorRecipe(Path("labels"), Path("out"), steps=1200), pace=1.0, seconds=600)
    540
    """
    return max(min(_LEAST, recipe.steps), min(recipe.steps, int(_SPARE * seconds / max(pace, 1e-6))))
