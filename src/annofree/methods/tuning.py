"""What was chosen for the models of a preset: settings of methods, default methods, and on what it was chosen.

``assets/tuning.toml`` has a table a preset; a preset without one of its own has that of ``real``, which holds what is published
or needs no tuning.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = [
    "POLICIES",
    "Tuned",
    "find_default_method",
    "find_tuning",
    "list_tuned_methods",
    "read_asset",
    "read_bank",
    "read_calibration",
    "read_policy",
    "read_tuning",
]

POLICIES = ("answer", "all")
"""``answer``: the policy of the preset; ``all``: the whole ranking as the method gives it."""

_REAL = "real"


@dataclass(frozen=True)
class Tuned:
    """What was chosen of a method with the models of a preset."""

    # replace those of the variant ``default`` by name, nested ones too
    settings: Mapping[str, Any]
    # the scenes that they were chosen on
    chosen_on: str


def find_tuning(preset: str, method: str) -> Tuned:
    """What replaces the published settings of a method with the models of a preset; nothing where none were chosen.

    >>> find_tuning("tiny", "sam_clip").settings["points"], find_tuning("fast", "sam_clip").settings
    (16, {})
    """
    own = read_tuning(preset).get("methods", {}).get(method, {})
    return Tuned(own.get("settings", {}), own.get("chosen_on", ""))


def list_tuned_methods(preset: str) -> tuple[str, ...]:
    """The methods of which something was chosen with the models of a preset."""
    return tuple(read_tuning(preset).get("methods", {}))


def find_default_method(preset: str, task: str = "instance") -> str:
    """Who does a task with the models of a preset, where no method is named."""
    return str(read_tuning(preset)["default"][task])


def read_policy(preset: str, method: str) -> Mapping[str, Any]:
    """The output policy of a method on the models of a preset, as plain values."""
    table = read_tuning(preset)
    return {**table["policy"], **table.get("methods", {}).get(method, {}).get("policy", {})}


def read_bank(preset: str, method: str) -> Mapping[str, Any]:
    """What replaces the settings of a bank for a method on the models of a preset, as plain values; nothing where none were."""
    own: Mapping[str, Any] = read_tuning(preset).get("methods", {}).get(method, {}).get("bank", {})
    return own


def read_calibration(preset: str, method: str) -> dict[str, Any]:
    """The ``naming`` and the ``calibration`` of a method on the models of a preset; None where nothing was fitted."""
    from annofree.detections.verification import Calibration, Naming

    table = read_policy(preset, method)
    fitted = table.get("calibration")
    return {"naming": Naming(table["scale"]), "calibration": None if fitted is None else Calibration(**fitted)}


@cache
def read_asset(file: str) -> Mapping[str, Any]:
    """Read a TOML file of ``assets``, once."""
    return tomllib.loads((resources.files("annofree.assets") / file).read_text(encoding="utf-8"))


def read_tuning(preset: str) -> Mapping[str, Any]:
    """The table of a preset, that of ``real`` for one without."""
    tables: Mapping[str, Any] = read_asset("tuning.toml")["presets"]
    return dict(tables.get(preset, tables[_REAL]))
