"""``annofree pseudo-label``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tests.support.commands import invoker

from annofree.apps.cli.commands.pseudo_label import pseudo_label
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.structures import Detections

call = invoker(pseudo_label)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one image with two dogs and a cat."""
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 2:20, 2:20] = masks[1, 22:30, 2:20] = masks[2, 2:20, 25:40] = True
    file = CocoFile.with_categories({1: "dog", 2: "cat", 3: "cow"})
    id_ = file.add_image("a.png", (30, 40))
    file.add_annotations(Detections.from_masks(masks, [0, 0, 1], [0.9, 0.2, 0.5], ["dog", "cat", "cow"]).to_coco(id_))
    folder = tmp_path / "run"
    (folder / "shards").mkdir(parents=True)
    file.write(folder / "annotations.json")
    (folder / "run.json").write_text("{}")
    (folder / "shards" / "settings.json").write_text(json.dumps({"asked": {"root": str(tmp_path)}}))
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return folder


def test_a_table_of_what_stays(run: Path, tmp_path: Path) -> None:
    said = call(run, "--out", tmp_path / "out", "--min-score", "0.3", "--min-score", "cat=0.4", "--inside", "1")
    assert said.exit_code == 0
    lines = said.output.splitlines()
    assert [line.split() for line in lines[-7:-4]] == [
        ["class", "found", "labels", "pictures", "min", "score"],
        ["dog", "2", "1", "1", "0.300"],
        ["cat", "1", "1", "1", "0.400"],
    ]
    assert lines[-4] == "3 found, 2 kept; dropped: 1 by score"
    assert lines[-3] == "no label of 1 of 3 names, so none of these is learned: cow"
    assert "--per-class" in lines[-2]
    assert lines[-1] == f"written: {tmp_path / 'out' / 'labels.json'}; look at {tmp_path / 'out' / 'sheet.jpg'}"
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["info"]["rules"]["inside"] == 1.0


def test_json_and_a_second_round(run: Path, tmp_path: Path) -> None:
    first = call(run, "--out", tmp_path / "1", "--json", "--agnostic", "--most", 2, "--sheet", 0)
    assert first.exit_code == 0 and json.loads(first.stdout)["classes"]["object"]["labels"] == 2
    second = call(run, "--out", tmp_path / "2", "--merge", tmp_path / "1", "--per-class", 1, "--sheet", 0)
    assert "earlier labels: 0 stay, 2 go" in second.output
    assert call(run, "--out", tmp_path / "3", "--quiet").output == ""


def test_wrong_calls(run: Path, tmp_path: Path) -> None:
    said = call(run, "--out", tmp_path / "out", "--keep", "most")
    assert isinstance(said.exception, InputError) and "expected a number" in str(said.exception)
    assert call(run, "--out", tmp_path / "out", "--within", 2).exit_code == 2
