"""How the ranking of a method becomes the answer of a preset: its output policy, and the names that compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from annofree.clues.distractors import Distractors, Taxonomy
from annofree.detections.bank import BankCalibration, BankSettings
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.detections.verification import Calibration, Naming
from annofree.errors import build_unknown_error
from annofree.io.settings_file import check_fields, check_values
from annofree.methods.answering import Answering, AnsweringBoth, AnsweringMaps, Gated
from annofree.methods.components import Models
from annofree.methods.registry import find_method, resolve_method_name
from annofree.methods.tuning import POLICIES, read_asset, read_bank, read_policy, read_tuning
from annofree.protocols import Segmenter, SemanticSegmenter

__all__ = ["apply_policy", "build_answering", "parse_distractors", "resolve_bank", "resolve_policy"]


def apply_policy(
    method: Any, name: str, models: Models, policy: str | Mapping[str, Any], distractors: Sequence[str] = ()
) -> Any:
    """A method by its object and name under a policy: ``all``, ``answer``, or changes of the preset's policy.

    Raises InputError for another policy.
    """
    if isinstance(policy, str) and policy not in POLICIES:
        raise build_unknown_error("policy", policy, POLICIES)
    if policy == "all":
        return method
    changes = {} if isinstance(policy, str) else dict(policy)
    if "clip" not in find_method(name).needs:  # whose candidates nobody can look at
        changes = {"verify": False, "calibration": None, **changes}
    return build_answering(method, resolve_method_name(name), models, changes, distractors)


def resolve_policy(preset: str, method: str, changes: Mapping[str, Any] | None = None) -> OutputPolicy:
    """The policy for a method on the models of a preset; ``changes`` replace its fields by name.

    Raises InputError for a field that a policy has not.
    """
    own = {**read_policy(preset, method), **(changes or {})}
    known = [f.name for f in fields(OutputPolicy)]
    for name in own:
        if name not in (*known, "scale"):
            raise build_unknown_error("part of a policy", name, known)
    check_values(OutputPolicy, own, "a policy")
    if isinstance(own.get("overlaps"), Mapping):
        check_fields(Overlaps, own["overlaps"], "overlaps")
        own["overlaps"] = Overlaps(**own["overlaps"])
    if isinstance(own.get("calibration"), Mapping):
        own["calibration"] = Calibration(**own["calibration"])
    naming = Naming(own.pop("scale"))
    return OutputPolicy(**{"naming": naming, **own})


def resolve_bank(preset: str, method: str) -> BankSettings:
    """What a bank of the folder does for a method on the models of a preset; uncalibrated where nothing was fitted."""
    own = dict(read_bank(preset, method))
    if isinstance(own.get("calibration"), Mapping):
        own["calibration"] = BankCalibration(**own["calibration"])
    return BankSettings(**own)


def build_answering(
    method: Any, name: str, models: Models, changes: Mapping[str, Any] | None = None, more: Sequence[str] = ()
) -> Any:
    """A method, by its object and its name, with the policy of its preset; ``changes`` as ``resolve_policy`` takes them.

    ``changes`` may name another list of ``distractors``, too: common, emoji or none; ``more`` are some beside them.  Raises
    InputError for a list that is not known.
    """
    preset, changes = models.preset.name, dict(changes or {})
    listed = changes.pop("distractors", read_tuning(preset)["distractors"])
    policy = resolve_policy(preset, name, changes)
    kind = _KINDS[isinstance(method, Segmenter), isinstance(method, SemanticSegmenter)]
    if policy.verify and policy.presence is not None and isinstance(method, Gated):
        method = method.without_gate()
    if not policy.verify:
        return kind(method, policy, None)
    return kind(method, policy, models.clip, parse_distractors(listed, more))


def parse_distractors(listed: str, more: Sequence[str] = ()) -> Distractors:
    """A list of names that compete with those asked for: common, emoji or none; and ``more``.

    Raises InputError for a list that is not known.
    """
    lists = read_asset("tuning.toml")["distractors"]
    if listed not in lists:
        raise build_unknown_error("list of distractors", listed, lists)
    common, table = read_asset("common_nouns.toml"), lists[listed]
    words = {part: {k: tuple(v) for k, v in common[part].items()} for part in ("kinds", "synonyms", "parts")}
    names = table["names"] if "names" in table else _common(common)
    return Distractors(tuple(dict.fromkeys([*names, *more])), Taxonomy(**words), table["nearest"])


_KINDS = {(True, False): Answering, (False, True): AnsweringMaps, (True, True): AnsweringBoth}


def _common(common: Mapping[str, Any]) -> list[str]:
    """All things of the list, less the categories, each once."""
    every = [name for part in ("kinds", "parts") for whole, names in common[part].items() for name in (whole, *names)]
    return [name for name in dict.fromkeys(every) if name not in common["categories"]]
