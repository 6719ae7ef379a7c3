"""docs/api.md has every public name, as the code has it now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import annofree

ROOT = Path(__file__).parents[1]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_api_is_not_stale() -> None:
    made = script()
    assert sorted(name for names in made.SUBJECTS.values() for name in names) == sorted(annofree.__all__)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run `uv run python docs/make_api.py`"
