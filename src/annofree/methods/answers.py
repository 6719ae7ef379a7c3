"""How the rankings of a preset's models become answers: policies and settings that were chosen with these models.

``assets/answers.toml`` has a table a preset and method; a preset without one of its own has that of ``real``, which holds
what is published or needs no tuning.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

from annofree.clues.distractors import Distractors
from annofree.detections.overlaps import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.detections.verification import Calibration, Naming
from annofree.errors import unknown_name
from annofree.methods.answering import Answering, AnsweringBoth
from annofree.methods.models import Models
from annofree.protocols import SemanticSegmenter

__all__ = ["POLICIES", "answering", "default_method", "policy_of"]

POLICIES = ("answer", "all")
"""``answer``: the policy of the preset; ``all``: the whole ranking as the method gives it."""

_REAL = "real"


@cache
def _answers() -> Mapping[str, Any]:
    text = (resources.files("annofree.assets") / "answers.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _table(preset: str) -> Mapping[str, Any]:
    tables: Mapping[str, Any] = _answers()["presets"]
    return dict(tables.get(preset, tables[_REAL]))


def policy_of(preset: str, method: str, changes: Mapping[str, Any] | None = None) -> OutputPolicy:
    """The policy for a method on the models of a preset; ``changes`` replace its fields by name.

    Raises InputError for a field that a policy has not.
    """
    table = _table(preset)
    own = {**table["policy"], **table.get("methods", {}).get(method, {}), **(changes or {})}
    known = [f.name for f in fields(OutputPolicy)]
    for name in own:
        if name not in (*known, "scale"):
            raise unknown_name("part of a policy", name, known)
    if isinstance(own.get("overlaps"), Mapping):
        own["overlaps"] = Overlaps(**own["overlaps"])
    if isinstance(own.get("calibration"), Mapping):
        own["calibration"] = Calibration(**own["calibration"])
    naming = Naming(own.pop("scale", table["scale"]))
    return OutputPolicy(**{"naming": naming, **own})


def default_method(preset: str) -> str:
    """Who finds instances with the models of a preset, where no method is named."""
    return str(_table(preset)["method"])


def answering(
    method: Any, name: str, models: Models, changes: Mapping[str, Any] | None = None, more: Sequence[str] = ()
) -> Answering:
    """A method, by its object and its name, with the policy of its preset; ``changes`` as ``policy_of`` takes them.

    ``more`` are distractors beside those of the preset.
    """
    preset, policy = models.preset.name, policy_of(models.preset.name, name, changes)
    kind = AnsweringBoth if isinstance(method, SemanticSegmenter) else Answering
    if not policy.verify:
        return kind(method, policy, None)
    listed = _answers()["distractors"].get(_table(preset)["distractors"], {})
    distractors = Distractors(
        tuple(dict.fromkeys([*listed["names"], *more])),
        tuple(map(tuple, listed.get("related", ()))),
        listed.get("nearest", 1.0),
    )
    return kind(method, policy, models.clip, distractors)
