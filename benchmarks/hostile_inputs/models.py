"""Hostile models and settings: cards, bundles, checkpoints, recipes, lists of classes, truths and predictions."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.annotations import coco, picture
from benchmarks.hostile_inputs.mutations import NAMES, dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.sandbox import Case

__all__ = ["list_cases"]

CARD = {
    "name": "mine",
    "family": "transformers Sam2Model",
    "tier": "S2",
    "licence": "Apache-2.0",
    "trained_on": "nothing",
    "world": "emoji",
    "files": {"config.json": None},
    "use": {"mean": [0.5]},
    "figures": {"AP": 1.0},
    "papers": ["a"],
    "parameters": 3,
}
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
    "images": "nowhere",
    "models": "tiny",
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


def _folder(place: Path, card: bytes, call: Sequence[str], home: bool = False) -> Sequence[str]:
    """A model's folder with a card, to be added, or already in the home of models."""
    folder = place / ("home/models/mine" if home else "in/mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "link-out.png").symlink_to(place / "beside" / "secret.png")
    (folder / "card.json").write_bytes(card.replace(b"{place}", str(place).encode()))
    return call


def _card_cases() -> Iterator[Case]:
    add, allowed = ("models", "add", "--from", "mine"), ("out", "home")
    reads = cycle((["models", "list"], ["models", "show", "mine"], ["models", "verify"], ["models", "show", "tiny-sam"]))
    odd = spoil_json(CARD, 0, ("name",))
    for what, value in odd:
        yield Case("models add", f"card {what}", partial(_folder, card=dump(value), call=add), allowed)
        what, value = next(odd)
        yield Case(
            "models in the home", what, partial(_folder, card=dump(value), call=next(reads), home=True), ("out", "home/seen")
        )
    for name in NAMES:
        card = dump(CARD | {"files": {name: None}})
        yield Case("models add", f"file {name!r:.30}", partial(_folder, card=card, call=add), allowed)


def _card_bytes() -> Iterator[Case]:
    reads = cycle((["models", "list"], ["models", "show", "mine"], ["models", "verify", "mine"], ["doctor"]))
    for what, data in spoil_bytes(dump(CARD), 1):
        yield Case("models in the home", what, partial(_folder, card=data, call=next(reads), home=True), ("out", "home/seen"))


def _bundle(place: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], spoil: int) -> Sequence[str]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    odd = [data, data[: len(data) // 2], data[:-1024] + b"\1" * 1024, data.replace(b"ustar", b"xstar"), data[:700]]
    (place / "in" / "bundle.tar").write_bytes(odd[spoil])
    return ["models", "add", "--from", "bundle.tar"]


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def _bundle_cases() -> Iterator[Case]:
    import hashlib

    card = dump(CARD | {"files": {"config.json": hashlib.sha256(b"{}").hexdigest()}})
    plain = [(_member("mine/card.json"), card), (_member("mine/config.json"), b"{}")]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    odd = [_member(n.replace("{place}", "/tmp"), tarfile.REGTYPE) for n in NAMES if "\0" not in n and max(n) < "\udc00"]
    odd += [_member(f"mine/x{k}", kind, "../../beside/secret.txt") for k, kind in enumerate(kinds)]
    odd += [_member("mine/config.json"), _member("MINE/config.json"), _member("mine/card.json"), _member("mine")]
    for info in odd:
        for spoil in range(5):
            build = partial(_bundle, members=[*plain, (info, b"odd")], spoil=spoil)
            yield Case("models add bundle", f"{info.name!r:.30} {info.type!r} {spoil}", build, ("out", "home"))


def _train(place: Path, recipe: bytes, call: Sequence[str]) -> Sequence[str]:
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
    for (name, values), turn in zip(cycle(spoilt), cycle(range(5)), strict=False):
        what, value = next(values)
        if (
            what.split(" ")[0].split(".")[-1] in _LONG or what.split(".")[0] in ("network.layers", "scenes.sides")
        ) and "put" in what:
            continue
        if "layers." in what or "sides." in what:
            continue
        out = ("--out", "{place}/out")
        call = ["reproduce", "recipe.toml", *out] if name == "reproduce" else [*name.split(), "--config", "recipe.toml"]
        call += out if name != "reproduce" and turn else ()
        elsewhere = () if "{place}/out" in call else ("in",)
        yield Case(name, what, partial(_train, recipe=_as_toml(value), call=call), ("out", *elsewhere))


def _recipe_bytes() -> Iterator[Case]:
    odd = [spoil_bytes(_as_toml(value), k) for k, value in enumerate((TRAINING, RECIPE))]
    calls = (
        ["train", "detector", "--config", "recipe.toml", "--out", "{place}/out"],
        ["reproduce", "recipe.toml", "--out", "{place}/out"],
    )
    for values, call in cycle(zip(odd, calls, strict=True)):
        what, data = next(values)
        yield Case(call[0], what, partial(_train, recipe=data, call=call))


def _tuned(place: Path, name: str, data: bytes | None, labels: bytes, call: Sequence[str]) -> Sequence[str]:
    """A checkpoint, the bundled detector's, one file of it spoilt."""
    with resources.as_file(resources.files("annofree.assets") / "tiny-detector") as source:
        shutil.copytree(source, place / "in/checkpoint")
    _train(place, b"", ())
    (place / "in/labels.json").write_bytes(labels)
    if data is not None:
        (place / "in/checkpoint" / name).write_bytes(data)
    return [word.replace("{place}", str(place)) for word in call]


def _checkpoint_cases() -> Iterator[Case]:
    folder = resources.files("annofree.assets") / "tiny-detector"
    names = [one.name for one in folder.iterdir() if one.is_file() and one.name.endswith("json")]
    calls = cycle((
        ["finetune", "checkpoint", "--labels", "labels.json", "--images", "pictures", "--out", "{place}/out", "--steps", "1"],
        ["export-model", "checkpoint", "--out", "{place}/out.onnx"],
        ["models", "add", "--from", "checkpoint"],
    ))  # fmt: skip
    plain, rng = dump(coco()), random.Random(0)
    odd = {name: spoil_json(json.loads((folder / name).read_text()), k) for k, name in enumerate(names)}
    raw = {name: spoil_bytes((folder / name).read_bytes(), k) for k, name in enumerate(names)}
    labels = spoil_json(coco(), 9, ("file_name",))
    for name in cycle(names):
        for what, data in ((one := next(odd[name]))[0], dump(one[1])), next(raw[name]):
            build = partial(_tuned, name=name, data=data, labels=plain, call=next(calls))
            yield Case("checkpoint", f"{name} {what}", build, ("out", "out.onnx", "home"))
        what, value = next(labels)
        call = [
            "finetune",
            "checkpoint",
            "--labels",
            "labels.json",
            "--images",
            "pictures",
            "--out",
            "{place}/out",
            "--steps",
            "1",
        ]
        yield Case("finetune labels", what, partial(_tuned, name="", data=None, labels=dump(value), call=call))
        rng.random()


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


FAMILIES: tuple[Callable[[], Iterator[Case]], ...] = (
    *(
        _card_cases,
        _card_bytes,
        _bundle_cases,
        _recipe_cases,
        _recipe_bytes,
        _checkpoint_cases,
        _evaluate_cases,
        _evaluate_cases,
    ),
)


def list_cases(count: int) -> list[Case]:
    """So many cases, dealt out to the kinds."""
    share = -(-count // len(FAMILIES))
    return [case for family in dict.fromkeys(FAMILIES) for case in islice(family(), share * FAMILIES.count(family))][:count]
