"""docs/cli.md has what the commands say of themselves, whatever the version of the library that lays it out."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main
from tests.support.docs import load_docs_script

from annofree.apps.cli import app

ROOT = Path(__file__).parents[2]


def words(text: str) -> str:
    return "".join(text.split())


def test_the_page_of_commands_is_not_stale() -> None:
    made = load_docs_script("make_cli")
    page = made.PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^#+ (annofree[^\n]*)\n\n```text\n(.*?)```$", page, re.MULTILINE | re.DOTALL))
    known = {" ".join(path): command for path, command in made.commands(typer.main.get_command(app), ("annofree",))}
    assert list(sections) == list(known), "run `uv run python docs/make_cli.py`"
    for name, command in known.items():
        told = words(sections[name])
        assert words(command.help) in told, name
        own = [param for param in command.params if "completion" not in str(param.name)]
        assert all(words(param.help or "") in told for param in own), name
        options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
        lists = "\n".join(re.split(r"^\w[^\n]*:$", sections[name], flags=re.MULTILINE)[1:])
        assert set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", lists, re.MULTILINE)) <= options, name


def test_the_page_is_made_alike_at_any_width() -> None:
    made = load_docs_script("make_cli")
    page = made.page()
    assert page.count("```text") > 25 and max(map(len, page.splitlines())) <= 130
