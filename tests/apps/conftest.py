"""The command line, run in the process of a test."""

from __future__ import annotations

import sys

import pytest
from tests.support.cli import Cli, Said

from annofree.apps.cli import main


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``annofree ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["annofree", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Said(end.value.code, *capsys.readouterr())

    return run
