"""docs/api.md has every public name, as the code has it now."""

from __future__ import annotations

from pathlib import Path

from tests.support.docs import load_docs_script

import annofree

ROOT = Path(__file__).parents[1]


def test_the_page_of_the_api_is_not_stale() -> None:
    made = load_docs_script("make_api")
    assert sorted(name for names in made.SUBJECTS.values() for name in names) == sorted(annofree.__all__)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run `uv run python docs/make_api.py`"
