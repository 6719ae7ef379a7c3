"""Hostile numbers and words on the command line: every option of every command that takes a number, a name or a place."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.mutations import dump
from benchmarks.hostile_inputs.samples import coco, picture
from benchmarks.hostile_inputs.sandbox import Case

__all__ = ["list_cases"]

VALUES = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e999",
    "9" * 30,
    str(2**63),
    str(2**31),
    "1.5",
    "",
    " ",
    "x",
    "٣",
    "0x10",
    "1_0",
    "-0",
)
WORDS = (
    "",
    " ",
    ",",
    ":",
    "|",
    "a" * 100_000,
    "\x1b[31m",
    "\x9b",
    "\u202e",
    "-",
    "--",
    "../x",
    "a,a",
    "a|b|",
    "dog: ",
    "\udce9",
    "%s{}",
)
_SKIPPED = ("--help", "--install-completion", "--show-completion", "--version", "--out", "--device")
_INPUTS = {"segment": ["p"],
           "relabel": ["run"], "merge": ["run"], "report": ["run"], "review": ["run"], "pseudo-label": ["run"],
           "export": ["run"], "index": ["p"], "retrieve": ["index"], "mask": ["archive"], "convert": ["a.json"],
           "reproduce": ["recipe.toml"], "finetune": ["checkpoint"], "export-model": ["checkpoint"]}  # fmt: skip
_NEEDED = {"--classes": "red",
           "--format": "coco", "--from": "coco", "--to": "voc", "--labels": "a.json", "--config": "recipe.toml",
           "--truth": "a.json", "--predictions": "a.json", "--models": "tiny", "--steps": "1", "--images": "p"}  # fmt: skip


def _walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from _walk(one, (*path, name))
    else:
        yield path, command


def _build(place: Path, base: Path, call: Sequence[str]) -> Sequence[str]:
    shutil.copytree(base / "run", place / "in" / "run")
    (place / "in/p").mkdir()
    (place / "in/p/a.png").write_bytes(picture())
    (place / "in/a.json").write_bytes(dump(coco()))
    (place / "in/recipe.toml").write_text('title = "a"\n')
    return [word.replace("{place}", str(place)) for word in call]


def list_cases(count: int, base: Path, seed: int = 0) -> list[Case]:
    """So many calls, drawn from all pairs of an option and a value."""
    import typer.main

    from annofree.apps.cli import app

    found: list[tuple[tuple[str, ...], str, str]] = []
    commands = dict(_walk(typer.main.get_command(app)))
    for path, command in commands.items():
        for param in command.params:
            option = next((name for name in param.opts if name.startswith("--")), "")
            if option and option not in _SKIPPED and not getattr(param, "is_flag", False):
                record = str(param.get_help_record(command.make_context(path[-1], [], resilient_parsing=True)))
                is_number = any(kind in record for kind in ("<int", "<float", "<list[int", "<list[float"))
                found += [(path, option, value) for value in (VALUES if is_number else WORDS)]
    random.Random(seed).shuffle(found)
    return [_case(path, commands[path], option, value, base) for path, option, value in found[:count]]


def _case(path: tuple[str, ...], command: Any, option: str, value: str, base: Path) -> Case:
    known = {name for param in command.params for name in param.opts}
    call = [*path, *_INPUTS.get(path[-1], ["tiny-sam"] if path[0] == "models" and path[-1] in ("show", "bundle") else [])]
    for name, usual in _NEEDED.items():
        if name in known and name != option and not (name == "--images" and path[-1] in ("evaluate", "export", "convert")):
            call += [name, usual]
    call += ["--out", "{place}/out"] if "--out" in known else []
    return Case(
        "command line",
        f"{' '.join(path)} {option} {value!r:.30}",
        partial(_build, base=base, call=[*call, f"{option}={value}"]),
    )
