"""What every test is run with: a home of annofree's own, so that none reads or writes the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home: Path = tmp_path_factory.mktemp("annofree-home")
        patch.setenv("ANNOFREE_HOME", str(home))
        yield
