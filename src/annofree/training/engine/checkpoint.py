"""What a training leaves in its folder: a log of JSON lines, and the checkpoint that it goes on from.

    FOLDER
    ├── log.jsonl        one line every few steps: step, losses, learning rates, seconds, images/s
    └── checkpoint.pt    the last state, written whole or not at all; tensors and plain values only

A line is written before its checkpoint, so a killed run may have logged more than it kept: what a resumed run will do again
is first cut off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from annofree.errors import InputError, MissingError
from annofree.io.atomic import name_errors, write_atomic

__all__ = ["CHECKPOINT", "LOG", "Board", "add_line", "cut_log", "open_board", "read_log", "restore_state", "save_state"]

LOG, CHECKPOINT = "log.jsonl", "checkpoint.pt"

Line = Mapping[str, float]


class Board(Protocol):
    """What TensorBoard's writer does here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add a point to a curve."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the lines of a log, without one that was torn off; none where there is no log."""
    lines: list[dict[str, float]] = []
    if not path.is_file():
        return lines
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise InputError(f"expected lines with their step in {path}, got {text[:60]!r}; delete the line")
        lines.append(line)
    return lines


def add_line(path: Path, line: Line) -> None:
    """Write a line at the end of a log."""
    with name_errors(path), path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def cut_log(path: Path, step: int) -> None:
    """Take from a log what came after ``step``."""
    if path.is_file():
        kept = "".join(json.dumps(line) + "\n" for line in read_log(path) if line["step"] <= step)
        write_atomic(path, lambda temporary: temporary.write_text(kept, encoding="utf-8"))


def save_state(path: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write a state and the settings that it was reached with."""
    whole = {**state, "settings": json.dumps(settings)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch would not say why it cannot write
            torch.save(whole, file)

    write_atomic(path, write)


def restore_state(path: Path, settings: Mapping[str, Any], device: str) -> dict[str, Any] | None:
    """Read a state back, None where there is none.

    Raises InputError when it was reached with other settings, and names them.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        then = json.loads(state.pop("settings"))
    except Exception as problem:
        why = (str(problem) or type(problem).__name__).splitlines()[0]
        raise InputError(
            f"expected the checkpoint of a training at {path}, but it cannot be read: {why}; delete it to start anew"
        ) from None
    now = json.loads(json.dumps(settings))
    changed = [
        f"{name} was {json.dumps(then.get(name))}, now {json.dumps(now.get(name))}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            f"{path.parent} holds a run with other settings ({'; '.join(changed)}); go on with those, or elsewhere"
        )
    return state


def open_board(folder: Path, step: int) -> Board:
    """Open TensorBoard's writer in a folder, to go on after ``step``; raises MissingError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingError(
            "curves for TensorBoard need the package tensorboard: pip install tensorboard, or do without: log.jsonl has all"
        ) from None
    board: Board = SummaryWriter(str(folder), purge_step=step + 1)
    return board
