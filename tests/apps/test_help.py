"""Help as people read it: whole at any width, square brackets as they are, an example that can be called, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from rich.table import Table
from tests.support.cli import Cli
from tests.support.command_tree import ALL, LEAVES

from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.tables import open_console


def words(text: str) -> str:
    """Text without its spaces: lines may be broken at any of them, and after a hyphen."""
    return "".join(text.split())


@pytest.mark.parametrize("width", [60, 80])
def test_help_is_whole(cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for path, command in ALL.items():
        said = cli(*path, "--help").out
        assert "…" not in said, path
        assert max(map(len, said.splitlines())) <= width, path
        told = words(said)
        assert words(command.help) in told, path
        for param in command.params:
            assert words(param.help or "") in told, (path, param.name)
            assert all(name in said for name in param.opts if name.startswith("-")), (path, param.name)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_has_an_example_that_can_be_called(path: tuple[str, ...]) -> None:
    command = ALL[path]
    examples = [text for text in command.help.split("\n\n") if text.startswith("Example: ")]
    (example,) = examples
    called = shlex.split(example.removeprefix("Example: ").replace("\n", " "))
    assert called[: len(path) + 1] == ["annofree", *path]
    with command.make_context(" ".join(path), called[len(path) + 1 :]) as context:  # which refuses wrong options
        assert context.params


@pytest.mark.parametrize("path", [("segment",), ("evaluate",)], ids=" ".join)
def test_long_help_has_headings(path: tuple[str, ...]) -> None:
    panels = [p.rich_help_panel for p in ALL[path].params if p.param_type_name == "option"]
    assert all(panels) and len(set(panels)) >= 5


def test_square_brackets_are_text(cli: Cli) -> None:
    assert "Needs annofree[onnx]." in cli("export-model", "--help").out
    assert "(annofree[faiss])" in words(cli("retrieve", "--help").out)


def test_square_brackets_of_errors_are_text(cli: Cli) -> None:
    said = cli("annofree[onnx]")
    assert said.code == 2 and "'annofree[onnx]'" in said.err
    said = cli("segment", "a", "--classes", "b", "--policy", "[bold]annofree[onnx]")
    assert said.code == 2 and "'[bold]annofree[onnx]'" in said.err


def test_square_brackets_of_tables_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[bold]a", title="[red]b")
    table.add_row("[dim]c")
    open_console().print(table, "[blue]d")
    said = capsys.readouterr().out
    assert all(text in said for text in ("[bold]a", "[red]b", "[dim]c", "[blue]d"))


def test_square_brackets_of_progress_are_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress("steps of {a}[onnx]") as show:
        show(1, 1)
    assert "steps of {a}[onnx]" in capsys.readouterr().err


def test_the_version(cli: Cli) -> None:
    said = cli("--version")
    assert (said.code, said.out, said.err) == (0, f"annofree {version('annofree')}\n", "")


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "annofree", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"annofree {version('annofree')}\n"


def completed(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    parts = line.split(" ")
    asked = {"_ANNOFREE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(parts) - 1)}
    code = "import sys; from annofree.apps.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked, check=False)
    return done.stdout.split()


def test_shells_complete_commands_options_and_words() -> None:
    assert set(completed("annofree re")) == {"relabel", "reproduce", "retrieve", "report", "review"}
    assert completed("annofree segment --keep") == ["--keep-encodings"]
    assert completed("annofree segment --policy an") == ["answer"]
    assert set(completed("annofree evaluate --iou ")) == {"segm", "bbox"}


def test_completion_can_be_shown() -> None:
    asked = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "annofree", "--show-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=asked, check=True)
    assert "_ANNOFREE_COMPLETE" in done.stdout
