"""Hostile settings, truths and predictions: recipes of trainings and measurements, and what is scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from benchmarks.hostile_inputs.mutations import dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.samples import coco, picture
from benchmarks.hostile_inputs.sandbox import Case

from annofree.ops.rle import encode_rle
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask

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
ZUTIS: dict[str, Any] = {
    "archive": "archive",
    "clip": "tiny-clip-vit",
    "out": "{place}/out",
    "steps": 1,
    "batch": 1,
    "lr": 1e-3,
    "encoder_lr": 1e-4,
    "checkpoint_every": 1,
    "side": 32,
    "world": "emoji",
    "scenes": {"crop": 32, "images": [1, 2]},
    "network": {"queries": 4, "decoder_layers": 1, "decoder_heads": 4, "decoder_ffn": 16, "mlp_hidden": 16},
}
_LONG = (
    *("steps", "workers", "batch", "side", "sides", "longest", "width", "layers", "channels", "fc"),
    *("crop", "images", "queries", "decoder_layers", "decoder_heads", "decoder_ffn", "mlp_hidden", "accumulate"),
)
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
    (place / "in/truth.json").write_bytes(dump(_masked(coco())))
    _write_archive(place / "in/archive")
    (place / "in/recipe.toml").write_bytes(recipe.replace(b"{place}", str(place).encode()))
    return [word.replace("{place}", str(place)) for word in call]


def _masked(truth: dict[str, Any]) -> dict[str, Any]:
    """All objects with a mask, as truths of masks have."""
    for row in truth["annotations"]:
        row.setdefault("segmentation", [[3, 3, 8, 3, 8, 8, 3, 8]])
    return truth


def _write_archive(folder: Path) -> None:
    """One masked image each of two names."""
    folder.mkdir()
    rle = encode_rle(np.pad(np.ones((4, 6), bool), 4))
    with MaskWriter(folder, {"by": "selfmask", "model": {"tier": "S0"}}) as writer:
        for name in ("dog", "cat"):
            PIL.Image.new("RGB", (14, 12), (9, 90, 200)).save(folder / f"{name}.png")
            writer.add(PseudoMask(f"{name}.png", rle, 0.5))
    members = {name: (Member(f"{name}.png", 0.3),) for name in ("dog", "cat")}
    places = {f"{name}.png": str(folder / f"{name}.png") for name in ("dog", "cat")}
    Archive(("dog", "cat"), members, places, {"k": 1}).write(folder)


def _recipe_cases() -> Iterator[Case]:
    trainings = [("train detector", TRAINING), ("train zutis", ZUTIS), ("reproduce", RECIPE)]
    spoilt = [
        (name, spoil_json(value, k, ("labels", "images", "out", "truth", "archive", "clip")))
        for k, (name, value) in enumerate(trainings)
    ]
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
    truth, found = _masked(coco()), _masked(coco())
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
