"""The notebook of first steps: its cells run in order, and it is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annofree.formats.coco import CocoFile

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    notebook = json.loads((EXAMPLES / "first-steps.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return list(notebook["cells"])


def test_it_has_no_outputs(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4 and len({cell["id"] for cell in cells}) == len(cells)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_its_cells_run_in_order(cells: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    known: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, cell["id"], "exec"), known)
    assert set(known["found"].labels) == {"orange", "elephant"}
    assert set(known["others"].labels) <= {"fruit", "dog"} and len(known["others"])
    assert known["place"].is_relative_to(tmp_path)
    written = CocoFile.read(known["place"])
    assert [row["name"] for row in written.categories] == ["orange", "elephant"]
    assert len(written.annotations) == len(known["found"]) > 1
