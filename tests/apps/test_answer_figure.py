"""What README says of its first command: the line is what the kept answer comes to, and the models still answer so."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import PIL.Image
import pytest
from tests.support.cli import Cli

from annofree.formats.coco import CocoFile


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    return import_module("answer_figure")


def test_the_line_of_readme_is_what_the_kept_answer_comes_to(script: ModuleType) -> None:
    readme, answer = script.README.read_text(encoding="utf-8"), CocoFile.read(script.ANSWER)
    assert script.line(answer) in readme, "uv run python docs/answer_figure.py writes it anew"
    assert script.command()[:3] == ["segment", "examples/scenes", "--classes"]
    assert {image["file_name"] for image in answer.images} == {path.name for path in script.SCENES.iterdir()}
    assert [category["name"] for category in answer.categories] == script.command()[3].split(", ")


def test_the_picture_shows_four_scenes_and_is_small(script: ModuleType) -> None:
    assert script.PICTURE.stat().st_size < 400_000
    with PIL.Image.open(script.PICTURE) as image:
        assert image.size == script.sheet([(PIL.Image.new("RGB", (9, 9)),) * 2] * 4, ["a"]).size
    assert f"]({script.PICTURE.relative_to(script.ROOT)})" in script.README.read_text(encoding="utf-8")


def test_the_models_still_answer_so(script: ModuleType, cli: Cli, tmp_path: Path) -> None:
    """In one scene, for all twelve take minutes; where this fails, docs/answer_figure.py draws and counts anew."""
    (tmp_path / "scenes").mkdir()
    scene = "market.jpg"
    (tmp_path / "scenes" / scene).write_bytes((script.SCENES / scene).read_bytes())
    asked = [str(tmp_path / "scenes") if part == "examples/scenes" else part for part in script.command()]
    said = cli(*asked, "--out", tmp_path / "out", "--device", "cpu")
    assert said.code == 0, said
    now, kept = (script.counted(file, scene) for file in (script.answered(tmp_path / "out"), CocoFile.read(script.ANSWER)))
    assert (now.n_truth, now.n_answers, now.n_right) == (kept.n_truth, kept.n_answers, kept.n_right)
