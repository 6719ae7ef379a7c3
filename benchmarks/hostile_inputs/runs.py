"""Hostile run folders: every file of a run damaged, replaced or made to lead out, half of them with checksums set right."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.mutations import NAMES, dump, spoil_bytes, spoil_json
from benchmarks.hostile_inputs.sandbox import Case
from benchmarks.hostile_inputs.seals import measure_again, move_paths, seal_file
from benchmarks.stage import NAMES as COLOURS
from benchmarks.stage import Colours, draw_pictures

from annofree.io.files.checksums import measure_file
from annofree.methods.registry import TASKS
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary

__all__ = ["list_cases", "make_base"]

_STATE = (
    "run.json",
    "annotations.json",
    "shards/settings.json",
    "shards/inputs.txt",
    "shards/manifest.jsonl",
    "shards/00000.jsonl",
)
_ROWS = tuple(name for name in _STATE if "json" in name)
_FORMATS = ("coco", "yolo-seg", "voc", "labelme", "label-studio", "cvat", "png")
_FILES = ("file", "files", "file_name", "overlay", "labels", "panoptic", "id", "root")

Spoil = Callable[[Path], None]


def make_base(folder: Path, models: bool) -> None:
    """A complete run of all tasks over two images or four, by the tiny ``models`` or a method that knows colours."""
    draw_pictures(folder / "pictures", 2 if models else 4)
    if models:
        import annofree

        options = {
            "models": "tiny",
            "method": "zip",
            "policy": "all",
            "keep_encodings": True,
            "task": "instance,semantic,panoptic",
        }
        annofree.segment(folder / "pictures", "red, green, blue", out=folder / "run", **options)  # type: ignore[call-overload]
    else:
        _run_colours(folder / "pictures", folder / "run")


def _run_colours(images: Path, out: Path) -> None:
    source, method = find_source([images], out), Colours()
    ids, settings = list(source.list_ids()), {"method": "colours", "tasks": list(TASKS)}
    run = Run(
        RunConfig(
            out, ids, source.root, Vocabulary.of(COLOURS), settings, TASKS, ("blue",), stretch=2, overlays=True, keep=True
        )
    )
    tasks = Tasks(TASKS, method, method, ("blue",))
    run.execute(tasks, BatchEncoder(tasks, 4, 2), {"settings": settings})


def _calls(place: Path, name: str) -> list[list[str]]:
    """The commands that read a file of a run."""
    out = str(place / "out")
    again = ["segment", "pictures", "--classes", "red, green, blue", "--models", "tiny", "--method", "zip", "--policy", "all"]
    resuming = [
        [*again, "--task", "instance,semantic,panoptic", "--keep-encodings", "--out", out],
        ["merge", "run", "--out", out],
        ["relabel", "run", "--classes", "red", "--out", out],
    ]
    reading = [
        *(
            ["export", "run", "--format", kind, "--out", out, "--images", "copy", "--image-root", "pictures"]
            for kind in _FORMATS
        ),
        ["report", "run", "--out", out, "--images", "pictures"],
        ["review", "run", "--out", out],
        ["pseudo-label", "run", "--out", out],
        ["evaluate", "--truth", "run/annotations.json", "--predictions", "run/annotations.json", "--out", out + ".json"],
        [
            "convert",
            "run/annotations.json",
            "--from",
            "coco",
            "--to",
            "voc",
            "--out",
            out,
            "--images",
            "link",
            "--image-root",
            "pictures",
        ],
        ["convert", "run/labels", "--from", "png", "--to", "coco", "--out", out],
    ]
    return resuming if name.startswith(("shards", "encodings")) else reading + resuming * name.startswith(("run.json", "annot"))


def _build(place: Path, base: Path, spoil: Spoil, call: Sequence[str]) -> Sequence[str]:
    shutil.copytree(base, place / "in", dirs_exist_ok=True, symlinks=True)
    run = place / "in" / "run"
    for name in ("shards/settings.json", "run.json"):
        move_paths(run / name, base / "pictures", place / "in" / "pictures")
    _reseal(run)
    spoil(run)
    if call[0] == "segment":  # a hostile folder to resume in
        run.rename(place / "out")
    return [word.replace("{place}", str(place)) for word in call]


def _put(run: Path, name: str, data: bytes, seal: bool) -> None:
    (run / name).write_bytes(data.replace(b"{place}", str(run.parent.parent).encode()))
    if seal:
        _reseal(run, name)


def _reseal(run: Path, name: str = "") -> None:
    """Set the checksum of a file right, and what settings and manifest say of it, where it still can be read."""
    settings, manifest = run / "shards" / "settings.json", run / "shards" / "manifest.jsonl"
    if name in ("shards/settings.json", "shards/manifest.jsonl"):
        seal_file(run / name)
        return
    if name == "shards/inputs.txt":
        settings.write_bytes(dump(json.loads(settings.read_text()) | {"inputs": measure_file(run / name)}))
        seal_file(settings)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in lines:
        if "file" in row and (run / "shards" / row["file"]).is_file():
            row["bytes"], row["crc"] = measure_file(run / "shards" / row["file"])
        measure_again(row.get("files", {}), run)
    manifest.write_bytes(b"".join(dump(row) + b"\n" for row in lines))
    seal_file(manifest)


def _replace(run: Path, name: str, way: str) -> None:
    """Put something in the place of a file that is none, or leads elsewhere."""
    place = run / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    ways: dict[str, Callable[[], object]] = {
        "gone": lambda: None,
        "folder": place.mkdir,
        "link out": lambda: place.symlink_to(run.parent.parent / "beside" / "secret.txt"),
        "link to itself": lambda: place.symlink_to(place),
        "link to nothing": lambda: place.symlink_to(run.parent.parent / "beside" / "new.txt"),
        "fifo": lambda: os.mkfifo(place),
        "endless": lambda: place.symlink_to("/dev/zero"),
        "folder elsewhere": lambda: place.symlink_to(run.parent.parent / "beside"),
        "no rights": lambda: os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0)),
    }
    ways[way]()


def _read(base: Path, name: str) -> bytes:
    """A file of the run, with a sign for where a case will stand."""
    return (base / "run" / name).read_bytes().replace(str(base).encode(), b"{place}/in")


def _spoilt_rows(base: Path, name: str, seed: int) -> Iterator[tuple[str, bytes]]:
    """One row of a file of rows spoilt after the other, or the one object of a file."""
    text = _read(base, name).decode()
    rows = [json.loads(line) for line in text.splitlines()] if name.endswith("jsonl") else [json.loads(text)]
    spoilt = [spoil_json(row, seed + k, _FILES) for k, row in enumerate(rows)]
    for k in cycle(range(len(rows))):
        what, odd = next(spoilt[k])
        data = [dump(odd if j == k else row) for j, row in enumerate(rows)]
        yield f"{name} row {k}: {what}", b"\n".join(data) + b"\n"


def _put_rows(base: Path, name: str, seed: int, rng: random.Random) -> Iterator[tuple[str, Spoil]]:
    for what, data in _spoilt_rows(base, name, seed):
        seal = rng.random() < 0.5
        yield f"{what}{', sealed' * seal}", partial(_put, name=name, data=data, seal=seal)


def _put_bytes(base: Path, name: str, seed: int) -> Iterator[tuple[str, Spoil]]:
    for what, data in spoil_bytes(_read(base, name), seed):
        yield f"{name}: {what}", partial(_put, name=name, data=data, seal=False)


def _spoils(base: Path, seed: int) -> list[Iterator[tuple[str, Spoil]]]:
    places = [p.relative_to(base / "run").as_posix() for p in sorted((base / "run").rglob("*")) if p.name != "lock"]
    ways = (
        "gone",
        "folder",
        "link out",
        "link to itself",
        "link to nothing",
        "fifo",
        "endless",
        "folder elsewhere",
        "no rights",
    )
    pairs = [(name, way) for name in places for way in ways]
    random.Random(seed).shuffle(pairs)
    replaced = ((f"{name}: {way}", partial(_replace, name=name, way=way)) for name, way in cycle(pairs))
    rng = random.Random(seed)
    sealed = [_put_rows(base, name, seed + k, rng) for k, name in enumerate((*_ROWS, _ROWS[-1]))]
    raw = [_put_bytes(base, name, k) for k, name in enumerate(_STATE)]
    listed = (
        (f"shards/inputs.txt {name!r:.30}", partial(_put, name="shards/inputs.txt", data=dump(name) + b"\n", seal=True))
        for name in cycle(NAMES)
    )
    return [replaced, *sealed, *raw, listed]


def list_cases(count: int, base: Path, seed: int = 0) -> list[Case]:
    """So many run folders, each read by one of the commands that read runs."""
    sources: list[Iterator[tuple[str, Any]]] = [*_spoils(base, seed)]
    picked = [one for source in sources for one in islice(source, -(-count // len(sources)))]
    random.Random(seed).shuffle(picked)
    cases = []
    for number, (what, spoil) in enumerate(picked[:count]):
        calls = _calls(Path("{place}"), what)
        call = calls[number % len(calls)]
        allowed = ("out", "out.json", "in/run") if call[0] == "segment" else ("out", "out.json")
        build = partial(_build, base=base, spoil=spoil, call=call)
        cases.append(Case(f"run: {call[0]}", what, build, allowed))
    return cases
