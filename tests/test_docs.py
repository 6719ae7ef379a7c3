"""What the pages tell readers to type is understood: commands are parsed, and the Python of the quickstart runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from annofree.apps.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if "annofree" in words[:4]:
                        yield page.name, words[words.index("annofree") + 1 :]


CALLS = list(commands())


def parse(words: list[str]) -> None:
    """Read a command line as the program does, without doing it."""
    command: Any = typer.main.get_command(app)
    context = None
    while True:
        context = command.make_context(words[0] if words else "annofree", list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, rest)


def test_pages_have_commands() -> None:
    assert len(CALLS) > 20


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}: {' '.join(call[1][:2])}")
def test_a_command_of_a_page_is_understood(call: tuple[str, list[str]]) -> None:
    parse(call[1])


def test_the_python_of_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "quickstart.md", "python"):
        exec(block, names)
    assert names["run"].summary["instances"] > 0 and set(names["found"].detections.labels) == {"orange"}
    assert (tmp_path / "out" / "annotations.json").is_file()


def test_the_python_of_the_readme_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "README.md", "python")
    folder, one = '"examples/scenes", "orange', '"examples/scenes/oranges.jpg", "orange'
    assert folder in block, "the whole folder takes a minute, and its answer has a test of its own"
    exec(block.replace(folder, one), {})
    printed = capsys.readouterr().out
    promised = re.findall(r"print\(.*\)  # (Detections\(.*\))$", block, re.MULTILINE)
    assert len(promised) == 2 and all(line in printed.splitlines() for line in promised)
