"""Help and wrong calls of every command are answered before torch is imported: in a process that has imported nothing."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.support.command_tree import LEAVES
from tests.support.fresh_process import CALLS

from annofree.apps.cli import app

HEAVY = ("torch", "transformers", "open_clip", "timm", "torchvision")

WRONG: dict[str, tuple[str, ...]] = {
    "segment": ("MISSING", "EMPTY", "EMPTY --classes dog --limit 0", "EMPTY --classes-file MISSING"),
    "relabel": ("",),
    "name": ("", "MISSING --classes dog", "EMPTY --classes dog", "RUN --classes dog", "RUN --classes dog --images EMPTY"),
    "merge": ("MISSING --out OUT", "EMPTY --out OUT", "https://a.b/run --out OUT"),
    "evaluate": ("--truth MISSING", "--truth MISSING --predictions MISSING", "--truth NAMES --task x"),
    "reproduce": ("MISSING", "EMPTY", "https://a.b/zip.toml", "NAMES", "NAMES --limit 0"),
    "index": (
        "MISSING --out OUT",
        "https://a.b/c --out OUT",
        "EMPTY --out OUT --whole all",
        "EMPTY --out OUT --models tinny",
        "EMPTY --out OUT --models tiny-sam",
    ),
    "retrieve": (
        "MISSING --out OUT --classes dog",
        "https://a.b/c --out OUT --classes dog",
        "EMPTY --out OUT --classes dog",
        "EMPTY --out OUT",
        "EMPTY --out OUT --classes dog --classes-file NAMES",
        "EMPTY --out OUT --classes-file MISSING",
        "EMPTY --out OUT --classes dog --method fais",
    ),
    "mask": ("MISSING", "EMPTY", "https://a.b/c", "EMPTY --by me", "EMPTY --refine crf"),
    "pseudo-label": ("",),
    "finetune": ("EMPTY --labels NAMES --fraction 2",),
    "export-model": ("", "EMPTY", "EMPTY --out OUT --to tflite"),
    "report": ("MISSING", "EMPTY", "https://a.b/run", "EMPTY --crops 0"),
    "review": ("MISSING", "EMPTY", "https://a.b/run", "RUN --look flop", "RUN --risk doupt", "RUN --worst 0"),
    "serve": ("MISSING", "NAMES --out OUT", "EMPTY --host 0.0.0.0", "EMPTY --queue 0", "EMPTY --port 99999"),
    "mcp": ("--root MISSING", "--root NAMES"),
    "explain": (
        "MISSING --classes dog --out OUT",
        "EMPTY --classes dog --out OUT",
        "NAMES --classes dog --models tinny --out OUT",
        "NAMES --classes dog --method zop --out OUT",
        "NAMES --classes dog --out FULL",
        "NAMES --classes dog --out RUN",
        "NAMES --out OUT",
    ),
    "learn": (
        "MISSING --classes dog --out OUT",
        "EMPTY --classes dog --out OUT",
        "NAMES --out OUT",
        "NAMES --classes dog --out OUT --rounds 0",
        "NAMES --classes dog --out OUT --models tinny",
        "NAMES --classes dog --out OUT --method maskcut",
        "NAMES --classes dog --out OUT --config MISSING",
    ),
    "compare": (
        "RUN --out OUT",
        "RUN RUN --out OUT",
        "RUN MISSING --out OUT",
        "RUN EMPTY --out OUT",
        "RUN https://a.b/run --out OUT",
        "RUN --truth NAMES --out FULL",
        "RUN --truth NAMES --out RUN",
        "RUN --truth NAMES --out OUT --limit 0",
    ),
    "export": (
        "MISSING --format coco --out OUT",
        "EMPTY --format coco --out OUT",
        "https://a.b/run --format coco --out OUT",
        "RUN --format coko --out OUT",
        "RUN --format coco --out OUT --images cp",
        "RUN --format coco --out FULL",
    ),
    "convert": (
        "MISSING --from coco --to cvat --out OUT",
        "https://a.b/c.json --from coco --to cvat --out OUT",
        "RUN --from koko --to cvat --out OUT",
        "RUN --from coco --to cwat --out OUT",
        "NAMES --from coco --to cvat --out OUT",
    ),
    "doctor": ("nothing",),
    "models list": ("nothing",),
    "models show": ("tinny", "tiny-sam more"),
    "models pull": ("tinny",),
    "models verify": ("tinny",),
    "models bundle": ("tinny --out OUT",),
    "models add": ("--from MISSING", "--from https://a.b/c", "--from NAMES", "--from EMPTY --name tinny"),
    "train tiny-clip": ("--steps 0",),
    "train tiny-clip-vit": ("--steps 0",),
    "train tiny-sam": ("--steps 0",),
    "train tiny-dino": ("--steps 0",),
    "train found": ("--steps 0",),
    "train zutis": ("",),
    "train namedmask": ("",),
    "train selfmask": ("",),
    "train detector": ("",),
    "world emoji": ("--out OUT --side 3", "--out OUT --split toching", "--out OUT --font MISSING"),
}
"""What is refused, by command: MISSING is not there, EMPTY is a folder with nothing in it, NAMES a text, RUN a run."""


def test_every_command_has_wrong_calls() -> None:
    assert set(WRONG) == {" ".join(path) for path in LEAVES}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    named = {name: tmp_path / name.lower() for name in ("MISSING", "EMPTY", "NAMES", "RUN", "FULL", "OUT")}
    for name in ("EMPTY", "RUN", "FULL"):
        named[name].mkdir()
    named["NAMES"].write_text("dog\n", encoding="utf-8")
    (named["FULL"] / "notes.txt").touch()
    (named["RUN"] / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}', encoding="utf-8")
    (named["RUN"] / "run.json").write_text("{}", encoding="utf-8")
    return {name: str(path) for name, path in named.items()}


@pytest.mark.parametrize("command", WRONG)
def test_help_and_wrong_calls_import_no_torch(command: str, places: dict[str, str]) -> None:
    words = command.split()
    wrong = [*WRONG[command], "--no-such-option", *([""] if _needs_arguments(words) else [])]
    calls = [[*words, *(places.get(word, word) for word in shlex.split(call))] for call in wrong]
    calls.append([*words, "--help"])
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps([calls, HEAVY])], capture_output=True, text=True, check=True)
    for call, (code, said, imported) in zip(calls, json.loads(done.stdout), strict=True):
        assert not imported, call
        assert code == (0 if call[-1] == "--help" else 2), (call, said)
        assert "Usage: annofree" in said or "annofree: " in said, call
        assert "Traceback" not in said, call


def _needs_arguments(words: list[str]) -> bool:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return any(param.required for param in command.params)
