"""Hostile models: cards, bundles and checkpoints, added, in the home of models, or trained further."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from itertools import cycle, islice
from pathlib import Path

from benchmarks.hostile_inputs.mutations import NAMES, dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.samples import coco
from benchmarks.hostile_inputs.sandbox import Case
from benchmarks.hostile_inputs.settings import write_training

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

_TRAINING = 4096  # MB, of a detector on two images


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


def _tuned(place: Path, name: str, data: bytes | None, labels: bytes, call: Sequence[str]) -> Sequence[str]:
    """A checkpoint, the bundled detector's, one file of it spoilt."""
    with resources.as_file(resources.files("annofree.assets") / "tiny-detector") as source:
        shutil.copytree(source, place / "in/checkpoint")
    write_training(place, b"", ())
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
    plain = dump(coco())
    odd = {name: spoil_json(json.loads((folder / name).read_text()), k) for k, name in enumerate(names)}
    raw = {name: spoil_bytes((folder / name).read_bytes(), k) for k, name in enumerate(names)}
    labels = spoil_json(coco(), 9, ("file_name",))
    for name in cycle(names):
        for what, data in ((one := next(odd[name]))[0], dump(one[1])), next(raw[name]):
            build = partial(_tuned, name=name, data=data, labels=plain, call=next(calls))
            yield Case("checkpoint", f"{name} {what}", build, ("out", "out.onnx", "home"), most=_TRAINING)
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
        yield Case("finetune labels", what, partial(_tuned, name="", data=None, labels=dump(value), call=call), most=_TRAINING)


FAMILIES: tuple[Callable[[], Iterator[Case]], ...] = (_card_cases, _card_bytes, _bundle_cases, _checkpoint_cases)


def list_cases(count: int) -> list[Case]:
    """So many cases, dealt out to the kinds."""
    share = -(-count // len(FAMILIES))
    return [case for family in FAMILIES for case in islice(family(), share)][:count]
