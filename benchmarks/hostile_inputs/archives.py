"""Hostile images in tars and folders, and hostile indexes and archives."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmarks.hostile import bomb
from benchmarks.hostile_inputs.mutations import NAMES, dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.samples import picture
from benchmarks.hostile_inputs.sandbox import Case
from benchmarks.hostile_inputs.seals import measure_again, move_paths, seal_file

__all__ = ["list_cases", "make_base"]

_JSON = (
    "index/manifest.json",
    "index/ids-00000.json",
    "index/checksums-00000.json",
    "archive/archive.json",
    "archive/masks-about.json",
)
_MASKS = "archive/masks.jsonl"
_RAW = (*_JSON, "index/inputs.txt", "index/embeddings-00000.npy", _MASKS)


def make_base(folder: Path) -> None:
    """An index of two images, an archive of it, and its masks."""
    import annofree

    (folder / "pictures").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / "pictures" / name).write_bytes(picture())
    annofree.build_index(folder / "pictures", folder / "index", models="tiny")
    annofree.retrieve(folder / "index", folder / "archive", classes="dog, cat", k=2)
    annofree.mask_archive(folder / "archive", models="tiny", by="tokencut")


def _build(place: Path, base: Path, spoil: Callable[[Path], None], name: str, turn: int) -> Sequence[str]:
    shutil.copytree(base, place / "in", dirs_exist_ok=True)
    for path in (place / "in").rglob("*.json"):
        move_paths(path, base, place / "in")
    spoil(place / "in" / name)
    search = ["retrieve", "index", "--classes", "dog", "--out", str(place / "out"), "--k", "2"]
    resume = ["index", "pictures", "--models", "tiny", "--out", "index"]
    look = ["mask", "archive", "--models", "tiny", "--by", "tokencut"]
    return look if name.startswith("archive") else (search, resume)[turn % 2]


def _put(path: Path, data: bytes, seal: bool = False) -> None:
    """Write what a file holds, and with ``seal`` set the checksums right that it and others have of it."""
    path.write_bytes(data.replace(b"{place}", str(path.parents[2]).encode()))
    if seal:
        seal_file(path)
        if path.name.startswith("ids-"):
            known = path.with_name(path.name.replace("ids-", "checksums-"))
            held = json.loads(known.read_text())
            measure_again(held["files"], path.parent)
            known.write_bytes(dump(held))
            seal_file(known)


def _swap(path: Path, way: str) -> None:
    path.unlink()
    secret = path.parents[2] / "beside" / "secret.json"
    ways: dict[str, Callable[[], object]] = {
        "gone": lambda: None,
        "folder": path.mkdir,
        "link out": lambda: path.symlink_to(secret),
        "link to itself": lambda: path.symlink_to(path),
        "link to nothing": lambda: path.symlink_to(secret.with_name("new.json")),
        "fifo": lambda: os.mkfifo(path),
        "endless": lambda: path.symlink_to("/dev/zero"),
    }
    ways[way]()


def _stored_cases(base: Path) -> Iterator[Case]:
    held = {name: (base / name).read_bytes().replace(str(base).encode(), b"{place}/in") for name in _RAW}
    odd = {name: spoil_json(json.loads(held[name]), k, ("places", "ids")) for k, name in enumerate(_JSON)}
    lines = [json.loads(line) for line in held[_MASKS].splitlines()]
    odd[_MASKS] = spoil_json(lines, len(_JSON), ("id",))
    rng = random.Random(0)
    raw = {name: spoil_bytes(held[name], k) for k, name in enumerate(_RAW)}
    ways = cycle(("gone", "folder", "link out", "link to itself", "link to nothing", "fifo", "endless"))
    for turn, name in zip(cycle(range(3)), cycle(_RAW), strict=False):
        spoils: list[tuple[str, Callable[[Path], None]]] = []
        for what, value in islice(odd.get(name, iter(())), 2):
            rows = value if name == _MASKS and isinstance(value, list) else [value]
            odd_data = b"".join(dump(row) + b"\n" for row in rows)
            spoils.append((what, partial(_put, data=odd_data, seal=rng.random() < 0.5)))
        what, data = next(raw[name])
        spoils.append((what, partial(_put, data=data)))
        way = next(ways)
        spoils.append((way, partial(_swap, way=way)))
        for what, spoil in spoils:
            kind = name.split("/")[0]
            writes = ("in/archive",) if kind == "archive" else ("in/index",)
            yield Case(kind, f"{name} {what}", partial(_build, base=base, spoil=spoil, name=name, turn=turn), ("out", *writes))


def _tar(
    place: Path, members: Sequence[tuple[str, bytes, str, bytes]], name: str, spoil: int, call: Sequence[str]
) -> Sequence[str]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz" if name.endswith("gz") else "w", format=tarfile.PAX_FORMAT) as tar:
        for member, kind, link, data in members:
            info = tarfile.TarInfo(member)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    lying = data[:124] + b"77777777777\0" + data[136:]  # the first member says that it has 8 GB
    odd = [data, data[: len(data) * 2 // 3], lying, data + data, data[:600], data.replace(b"IDAT", b"JDAT")]
    (place / "in" / name).write_bytes(odd[spoil])
    return [*call, "--out", str(place / "out")]


def _tar_cases() -> Iterator[Case]:
    calls = cycle(
        (
            ["index", "{tar}", "--models", "tiny"],
            ["segment", "{tar}", "--classes", "dog", "--models", "tiny", "--method", "zip"],
        )
    )
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"?")
    odd = [
        (name.replace("{place}", ".."), tarfile.REGTYPE, "", picture())
        for name in NAMES
        if "\0" not in name and len(name) < 1000
    ]
    odd += [(f"x{k}.png", kind, "../beside/secret.png", b"") for k, kind in enumerate(kinds)]
    odd += [
        ("a.png", tarfile.REGTYPE, "", picture()),
        ("bomb.png", tarfile.REGTYPE, "", bomb()),
        ("b.png", tarfile.REGTYPE, "", b""),
    ]
    names, rng = cycle(("p.tar", "p.tar", "P.TAR", "p.tar.gz", "p.png", "p.tgz")), random.Random(0)
    while True:
        for one in odd:
            members, name, spoil = [("a.png", tarfile.REGTYPE, "", picture()), one], next(names), rng.randrange(6)
            call = [word.replace("{tar}", name) for word in next(calls)]
            yield Case(
                f"tar: {call[0]}",
                f"{one[0]!r:.30} {one[1]!r} {spoil}",
                partial(_tar, members=members, name=name, spoil=spoil, call=call),
            )


def _folder(place: Path, name: str, way: str, call: Sequence[str]) -> Sequence[str]:
    folder = place / "in" / "p"
    folder.mkdir()
    (folder / "good.png").write_bytes(picture())
    path = folder / name
    os.mkfifo(folder / "pipe")
    ways: dict[str, Callable[[], object]] = {
        "link out": lambda: path.symlink_to(place / "beside" / "secret.png"),
        "link to itself": lambda: path.symlink_to(path),
        "fifo": lambda: os.mkfifo(path),
        "fifo behind a link": lambda: path.symlink_to("pipe"),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "bomb": lambda: path.write_bytes(bomb()),
        "empty": lambda: path.write_bytes(b""),
        "round": lambda: path.symlink_to(folder),
        "list": lambda: (folder / "list.txt").write_text("../../beside/secret.png\n/dev/zero\n\0\ngood.png\n"),
    }
    ways[way]()
    source = "p/list.txt" if way == "list" else "p"
    return [*(word.replace("{tar}", source) for word in call), "--out", str(place / "out")]


def _folder_cases() -> Iterator[Case]:
    calls = cycle(
        (
            ["index", "{tar}", "--models", "tiny"],
            ["segment", "{tar}", "--classes", "dog", "--models", "tiny", "--method", "zip"],
        )
    )
    for name in ("a.png", "a\nb.png", "\x1b[31m.jpg", "caf\udce9.png", "a.tar", "x" * 250 + ".png"):
        for way in (
            "link out",
            "link to itself",
            "fifo",
            "fifo behind a link",
            "device",
            "folder",
            "bomb",
            "empty",
            "round",
            "list",
        ):
            call = next(calls)
            yield Case(f"folder: {call[0]}", f"{name!r:.30} {way}", partial(_folder, name=name, way=way, call=call))


def list_cases(count: int, base: Path) -> list[Case]:
    """So many: half of them indexes and archives, the rest tars and folders."""
    stored = list(islice(_stored_cases(base), count // 2))
    folders = list(islice(_folder_cases(), min(count // 6, 60)))
    return [*stored, *folders, *islice(_tar_cases(), count - len(stored) - len(folders))]
