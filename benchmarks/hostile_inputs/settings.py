"""Hostile settings, truths and predictions: recipes of trainings and measurements, and what is scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.mutations import dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.samples import coco, picture
from benchmarks.hostile_inputs.sandbox import Case

__all__ = ["list_cases", "write_training"]

TRAINING: dict[str, Any] = {
    "labels": "labels.json",
    "images": "pictures",
    "out": "{place}/out",
    "steps": 1,
    "batch": 1,
    "lr": 0.02,
    "decay_at": [1],
    "warmup": 0,
    "workers": 0,
    "checkpoint_every": 1,
    "network": {
        "backbone": "clip-resnet",
        "layers": [1, 1, 1, 1],
        "width": 8,
        "norm": "group",
        "channels": 8,
        "fc": 16,
        "side": 48,
    },
    "scenes": {"sides": [48], "longest": 64, "copy_paste": 0.5},
}
RECIPE: dict[str, Any] = {
    "title": "a",
    "world": "emoji",
    "tier": "S2",
    "hardware": "a",
    "minutes": 1,
    "tolerance": 1.5,
    "truth": "truth.json",
    "images": "pictures",
    "models": "tiny",
    "group_by": "split",
    "run": [{"name": "a", "method": "zip", "policy": {"floor": 0.0}, "expected": {"AP": 33.1}}],
}
_LONG = ("steps", "workers", "batch", "side", "sides", "longest", "width", "layers", "channels", "fc")
"""Settings whose huge values are a long or large training, which nobody refuses."""


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("null", '"null"')


def _key(key: str) -> str:
    return json.dumps(key)


def _as_toml(value: Any) -> bytes:
    return "".join(f"{_key(key)} = {_toml(one)}\n" for key, one in value.items()).encode("utf-8", "replace")


def write_training(place: Path, recipe: bytes, call: Sequence[str]) -> Sequence[str]:
    (place / "in/pictures").mkdir()
    for name in ("a.png", "b.png"):
        (place / "in/pictures" / name).write_bytes(picture())
    (place / "in/labels.json").write_bytes(dump(coco()))
    (place / "in/truth.json").write_bytes(dump(coco()))
    (place / "in/recipe.toml").write_bytes(recipe.replace(b"{place}", str(place).encode()))
    return [word.replace("{place}", str(place)) for word in call]


def _recipe_cases() -> Iterator[Case]:
    trainings = [("train detector", TRAINING), ("train zutis", TRAINING), ("reproduce", RECIPE)]
    spoilt = [(name, spoil_json(value, k, ("labels", "images", "out", "truth"))) for k, (name, value) in enumerate(trainings)]
    for name, values in cycle(spoilt):
        what, value = next(values)
        if (
            what.split(" ")[0].split(".")[-1] in _LONG or what.split(".")[0] in ("network.layers", "scenes.sides")
        ) and "put" in what:
            continue
        if "layers." in what or "sides." in what:
            continue
        out = ("--out", "{place}/out")
        call = ["reproduce", "recipe.toml", *out] if name == "reproduce" else [*name.split(), "--config", "recipe.toml"]
        call += out if name != "reproduce" else ()
        yield Case(name, what, partial(write_training, recipe=_as_toml(value), call=call))


def _recipe_bytes() -> Iterator[Case]:
    odd = [spoil_bytes(_as_toml(value), k) for k, value in enumerate((TRAINING, RECIPE))]
    calls = (
        ["train", "detector", "--config", "recipe.toml", "--out", "{place}/out"],
        ["reproduce", "recipe.toml", "--out", "{place}/out"],
    )
    for values, call in cycle(zip(odd, calls, strict=True)):
        what, data = next(values)
        yield Case(call[0], what, partial(write_training, recipe=data, call=call))


def _score(place: Path, truth: bytes, predictions: bytes, more: Sequence[str]) -> Sequence[str]:
    for name, data in (("truth.json", truth), ("predictions.json", predictions)):
        (place / "in" / name).write_bytes(data.replace(b"{place}", str(place).encode()))
    call = ["evaluate", "--truth", "truth.json", "--predictions", "predictions.json", "--out", str(place / "out.json")]
    return [*call, *(word.replace("{place}", str(place)) for word in more)]


def _evaluate_cases() -> Iterator[Case]:
    truth, found = coco(), coco()
    for row in found["annotations"]:
        row["score"] = 0.5
    bare = found["annotations"]
    ways: cycle[list[str]] = cycle(
        ([], ["--json"], ["--iou", "bbox"], ["--per-class", "--page", "{place}/out/page.html"], ["--by", "file_name"])
    )
    odd = [spoil_json(truth, 1, ("file_name",)), spoil_json(found, 2, ("file_name",)), spoil_json(bare, 3)]
    raw = [spoil_bytes(dump(truth), 4), spoil_bytes(dump(found), 5)]
    for more in ways:
        sides: list[tuple[str, bytes, bytes]] = []
        (a, one), (b, two), (c, three) = (next(values) for values in odd)
        sides += [(a, dump(one), dump(found)), (b, dump(truth), dump(two)), (c, dump(truth), dump(three))]
        (a, left), (b, right) = (next(values) for values in raw)
        sides += [(a, left, dump(found)), (b, dump(truth), right)]
        for what, first, second in sides:
            yield Case("evaluate", what, partial(_score, truth=first, predictions=second, more=more), ("out.json", "out"))


FAMILIES: tuple[Callable[[], Iterator[Case]], ...] = (_recipe_cases, _recipe_bytes, _evaluate_cases)


def list_cases(count: int) -> list[Case]:
    """So many cases, dealt out to the kinds."""
    share = -(-count // len(FAMILIES))
    return [case for family in FAMILIES for case in islice(family(), share)][:count]
