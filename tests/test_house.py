"""The house: how many files a room holds, how deep it goes, how long the file of a command is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import annofree

HOUSE = Path(annofree.__file__).parent
COMMANDS = tuple(HOUSE / "apps" / "cli" / room for room in ("commands", "look_commands", "model_commands", "train_commands"))
TESTS = Path(__file__).parent
MOST_FILES, MOST_LEVELS, MOST_LINES = 20, 3, 60


def rooms() -> Iterator[Path]:
    for folder in (HOUSE, *sorted(HOUSE.rglob("*/"))):
        if any(folder.glob("*.py")):
            yield folder


def test_a_room_holds_what_one_can_look_over() -> None:
    counts = {room.relative_to(HOUSE).as_posix(): len(list(room.glob("*.py"))) for room in rooms()}
    assert len(counts) > 20
    assert {room: count for room, count in counts.items() if count > MOST_FILES} == {}


def test_rooms_are_three_levels_deep_at_most() -> None:
    assert [room for room in rooms() if len(room.relative_to(HOUSE).parts) > MOST_LEVELS] == []


def test_a_command_parses_calls_and_prints() -> None:
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for room in COMMANDS for path in room.glob("*.py")}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_tests_share_builders_through_support_alone() -> None:
    imports = re.compile(r"^\s*(?:from|import) (tests\.(?!support)[\w.]+)", re.MULTILINE)
    wrong = {
        str(path.relative_to(TESTS)): found
        for path in sorted(TESTS.rglob("*.py"))
        if (found := imports.findall(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}, "move what two tests share to tests/support"
