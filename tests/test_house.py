"""The house: how many files a room holds, how deep it goes, how long the file of a command is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import annofree

HOUSE = Path(annofree.__file__).parent
COMMANDS = HOUSE / "apps" / "cli" / "commands"
MOST_FILES, MOST_LEVELS, MOST_LINES = 20, 3, 60

STILL_LONG = {
    "doctor",
    "evaluate",
    "evaluate_classes",
    "evaluate_instances",
    "evaluate_semantic",
    "export",
    "export_model",
    "index",
    "mask",
    "models",
    "models_page",
    "pseudo_label",
    "relabel",
    "report",
    "reproduce",
    "reproduce_published",
    "retrieve",
    "review",
    "segment",
    "train",
    "train_selfmask",
}
"""Files of commands that still do more than parse, call and print; the list may only become shorter."""


def rooms() -> Iterator[Path]:
    for folder in (HOUSE, *sorted(HOUSE.rglob("*/"))):
        if any(folder.glob("*.py")):
            yield folder


def test_a_room_holds_what_one_can_look_over() -> None:
    counts = {room.relative_to(HOUSE).as_posix(): len(list(room.glob("*.py"))) for room in rooms() if room != COMMANDS}
    assert len(counts) > 20
    assert {room: count for room, count in counts.items() if count > MOST_FILES} == {}


def test_rooms_are_three_levels_deep_at_most() -> None:
    assert [room for room in rooms() if len(room.relative_to(HOUSE).parts) > MOST_LEVELS] == []


def test_a_command_parses_calls_and_prints() -> None:
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in COMMANDS.glob("*.py")}
    assert {name: count for name, count in lines.items() if count > MOST_LINES and name not in STILL_LONG} == {}
