"""What was chosen for the models of a preset: settings of methods, how rankings become answers, and on what it was chosen.

``assets/tuning.toml`` has a table a preset; a preset without one of its own has that of ``real``, which holds what is published
or needs no tuning.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from annofree.clues.distractors import Distractors, Taxonomy
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.detections.verification import Calibration, Naming
from annofree.errors import unknown_name
from annofree.io.settings_file import check_fields, check_values
from annofree.methods.answering import Answering, AnsweringBoth, AnsweringMaps, Gated
from annofree.methods.components import Models
from annofree.protocols import Segmenter, SemanticSegmenter

__all__ = ["POLICIES", "Tuned", "answering", "default_method", "distractors_of", "policy_of", "tuned", "tuned_methods"]

POLICIES = ("answer", "all")
"""``answer``: the policy of the preset; ``all``: the whole ranking as the method gives it."""

_REAL = "real"


@dataclass(frozen=True)
class Tuned:
    """The ``settings`` of a method that were chosen with the models of a preset, nested ones too, and on what."""

    settings: Mapping[str, Any]
    chosen_on: str


def tuned(preset: str, method: str) -> Tuned:
    """What replaces the published settings of a method with the models of a preset; nothing where none were chosen.

    >>> tuned("tiny", "sam_clip").settings["points"], tuned("fast", "sam_clip").settings
    (16, {})
    """
    own = _table(preset).get("methods", {}).get(method, {})
    return Tuned(own.get("settings", {}), own.get("chosen_on", ""))


def tuned_methods(preset: str) -> tuple[str, ...]:
    """The methods of which something was chosen with the models of a preset."""
    return tuple(_table(preset).get("methods", {}))


def policy_of(preset: str, method: str, changes: Mapping[str, Any] | None = None) -> OutputPolicy:
    """The policy for a method on the models of a preset; ``changes`` replace its fields by name.

    Raises InputError for a field that a policy has not.
    """
    table = _table(preset)
    chosen = table.get("methods", {}).get(method, {}).get("policy", {})
    own = {**table["policy"], **chosen, **(changes or {})}
    known = [f.name for f in fields(OutputPolicy)]
    for name in own:
        if name not in (*known, "scale"):
            raise unknown_name("part of a policy", name, known)
    check_values(OutputPolicy, own, "a policy")
    if isinstance(own.get("overlaps"), Mapping):
        check_fields(Overlaps, own["overlaps"], "overlaps")
        own["overlaps"] = Overlaps(**own["overlaps"])
    if isinstance(own.get("calibration"), Mapping):
        own["calibration"] = Calibration(**own["calibration"])
    naming = Naming(own.pop("scale"))
    return OutputPolicy(**{"naming": naming, **own})


def default_method(preset: str, task: str = "instance") -> str:
    """Who does a task with the models of a preset, where no method is named."""
    return str(_table(preset)["default"][task])


def answering(
    method: Any, name: str, models: Models, changes: Mapping[str, Any] | None = None, more: Sequence[str] = ()
) -> Any:
    """A method, by its object and its name, with the policy of its preset; ``changes`` as ``policy_of`` takes them.

    ``changes`` may name another list of ``distractors``, too: common, emoji or none; ``more`` are some beside them.  Raises
    InputError for a list that is not known.
    """
    preset, changes = models.preset.name, dict(changes or {})
    listed = changes.pop("distractors", _table(preset)["distractors"])
    policy = policy_of(preset, name, changes)
    kind = _KINDS[isinstance(method, Segmenter), isinstance(method, SemanticSegmenter)]
    if policy.verify and policy.presence is not None and isinstance(method, Gated):
        method = method.ungated()
    if not policy.verify:
        return kind(method, policy, None)
    return kind(method, policy, models.clip, distractors_of(listed, more))


def distractors_of(listed: str, more: Sequence[str] = ()) -> Distractors:
    """A list of names that compete with those asked for: common, emoji or none; and ``more``.

    Raises InputError for a list that is not known.
    """
    lists = _read("tuning.toml")["distractors"]
    if listed not in lists:
        raise unknown_name("list of distractors", listed, lists)
    common, table = _read("common_nouns.toml"), lists[listed]
    words = {part: {k: tuple(v) for k, v in common[part].items()} for part in ("kinds", "synonyms", "parts")}
    names = table["names"] if "names" in table else _common(common)
    return Distractors(tuple(dict.fromkeys([*names, *more])), Taxonomy(**words), table["nearest"])


_KINDS = {(True, False): Answering, (False, True): AnsweringMaps, (True, True): AnsweringBoth}


@cache
def _read(file: str) -> Mapping[str, Any]:
    return tomllib.loads((resources.files("annofree.assets") / file).read_text(encoding="utf-8"))


def _table(preset: str) -> Mapping[str, Any]:
    tables: Mapping[str, Any] = _read("tuning.toml")["presets"]
    return dict(tables.get(preset, tables[_REAL]))


def _common(common: Mapping[str, Any]) -> list[str]:
    """All things of the list, less the categories, each once."""
    every = [name for part in ("kinds", "parts") for whole, names in common[part].items() for name in (whole, *names)]
    return [name for name in dict.fromkeys(every) if name not in common["categories"]]
