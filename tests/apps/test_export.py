"""``annofree export`` and ``annofree convert``."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.commands import invoker

from annofree.apps.cli.commands.convert import convert
from annofree.apps.cli.commands.export import export
from annofree.apps.cli.options import files
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.registry import FORMATS, read
from annofree.structures import Detections

run = invoker(export, convert)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run of one image with a dog and a thing called no, one over the other."""
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:5, 1:4] = masks[1, 2:4, 2:7] = True
    file = CocoFile.with_categories({1: "dog", 2: "no"})
    image_id = file.add_image("a.jpg", (6, 8), overlay="overlays/a.jpg")
    file.add_annotations(Detections.from_masks(masks, [0, 1], [0.5, 0.25], ["dog", "no"]).to_coco(image_id))
    folder = tmp_path / "run"
    folder.mkdir()
    file.write(folder / "annotations.json")
    settings = {"methods": {"instance": "zip"}, "variant": "default", "models": "tiny"}
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_a_run_is_exported(made: Path, tmp_path: Path) -> None:
    said = run("export", made, "--format", "label-studio", "--out", tmp_path / "ls")
    assert said.exit_code == 0 and said.output.splitlines()[-2:] == ["nothing was lost", f"written: {tmp_path / 'ls'}"]
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    assert tasks[0]["predictions"][0]["model_version"] == "annofree zip default (tiny)"
    assert sorted(p.name for p in (tmp_path / "ls").iterdir()) == ["fidelity.json", "label_config.xml", "tasks.json"]


def test_losses_are_said_and_saved(made: Path, tmp_path: Path) -> None:
    said = run("export", made, "--format", "voc", "--out", tmp_path / "voc")
    assert said.exit_code == 0 and "lost: 1 masks changed; 2 scores" in said.output
    report = json.loads((tmp_path / "voc" / "fidelity.json").read_text())
    assert report["losses"] == ["1 masks changed", "2 scores"] and report["exact"] == 1


def test_formats_are_converted(made: Path, tmp_path: Path) -> None:
    assert run("export", made, "--format", "cvat", "--out", tmp_path / "cvat").exit_code == 0
    said = run("convert", tmp_path / "cvat", "--from", "cvat", "--to", "coco", "--out", tmp_path / "coco")
    assert said.exit_code == 0 and "nothing was lost" in said.output
    before, after = (read("coco", folder) for folder in (made, tmp_path / "coco"))
    assert [a["segmentation"] for a in after.annotations] == [a["segmentation"] for a in before.annotations]


def test_wrong_calls_are_refused(made: Path, tmp_path: Path) -> None:
    def refusal(*arguments: object) -> str:
        problem = run(*arguments).exception
        assert isinstance(problem, InputError)
        return str(problem)

    assert "did you mean" in refusal("export", made, "--format", "coko", "--out", tmp_path / "o")
    assert "unknown way with images" in refusal("export", made, "--format", "coco", "--out", tmp_path / "o", "--images", "cp")
    (made / "annotations.json").unlink()
    assert "there are none; run" in refusal("export", made, "--format", "coco", "--out", tmp_path / "o")
    (made / "labels").mkdir()
    assert "index PNGs as they are" in refusal("export", made, "--format", "png", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_help_names_the_formats_that_there_are() -> None:
    assert set(files.FORMATS) == set(FORMATS)
