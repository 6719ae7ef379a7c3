"""A run's results turned into a folder of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.datasets.labeled import Labeled
from annofree.errors import InputError
from annofree.runs.store.results import write_annotations
from annofree.structures import Detections
from annofree.training.pseudo_labels.rules import ByClass, LabelRules
from annofree.training.pseudo_labels.select import select_labels

SIZE = 40, 60
NAMES = ("cat", "dog", "cow")

Things = list[tuple[int, float, tuple[int, int, int, int]]]
"""Class, score and box y0 x0 y1 x1 of each."""

IMAGES: dict[str, Things] = {
    "a.png": [(0, 0.9, (0, 0, 20, 20)), (0, 0.6, (0, 0, 18, 20)), (1, 0.4, (20, 30, 40, 60))],
    "b/c.png": [(1, 0.8, (5, 5, 25, 45))],
    "d.png": [],
    "e.png": [(2, 0.2, (0, 0, 10, 10)), (1, 0.7, (10, 10, 30, 30))],
}


def detections(things: Things, names: tuple[str, ...] = NAMES) -> Detections:
    masks = np.zeros((len(things), *SIZE), bool)
    for mask, (_, _, (y0, x0, y1, x1)) in zip(masks, things, strict=True):
        mask[y0:y1, x0:x1] = True
    return Detections.from_masks(masks, [k for k, _, _ in things], [s for _, s, _ in things], names)


def write_run(folder: Path, images: dict[str, Things], root: Path | None, names: tuple[str, ...] = NAMES) -> Path:
    """The files of a run that labels are made of."""
    (folder / "shards").mkdir(parents=True)
    image: dict[str, Any] = {"height": SIZE[0], "width": SIZE[1]}
    rows: list[dict[str, Any]] = [
        {"image": {**image, "file_name": name}, "annotations": detections(things, names).to_coco(0)}
        for name, things in images.items()
    ]
    write_annotations(folder / "annotations.json", names, lambda: rows)
    models = {"clip": {"name": "tiny-clip", "kind": "clip", "tier": "S1", "licence": "MIT", "sha256": {}}}
    about = {"settings": {"methods": {"instance": "zip"}}, "provenance": {"models": [models]}, "timings": {"images": 4}}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "shards" / "settings.json").write_text(json.dumps({"asked": {"root": str(root) if root else None}}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "b").mkdir()
    for name in IMAGES:
        PIL.Image.new("RGB", (SIZE[1], SIZE[0]), "navy").save(folder / name)
    return folder


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", IMAGES, photos)


def labels_of(folder: Path) -> dict[str, list[tuple[str, float]]]:
    read = Labeled.read(folder)
    found = {id_: read.read_instances(i) for i, id_ in enumerate(read.ids)}
    rows = {id_: zip(f.labels.tolist(), f.scores.tolist(), strict=True) for id_, f in found.items()}
    return {id_: [(name, round(score, 3)) for name, score in own] for id_, own in rows.items()}


def test_labels_with_their_origin(run: Path, photos: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    info = select_labels(run, tmp_path / "out", on_progress=lambda *at: steps.append(at))
    assert labels_of(tmp_path / "out") == {
        "a.png": [("cat", 0.9), ("dog", 0.4)],
        "b/c.png": [("dog", 0.8)],
        "d.png": [],
        "e.png": [("dog", 0.7), ("cow", 0.2)],
    }
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert info["counts"]["found"] == 6 and info["counts"]["duplicate"] == 1 and info["counts"]["kept"] == 5
    assert info["classes"]["dog"] == {"found": 3, "labels": 3, "pictures": 3} and info["min_scores"]["dog"] == 0
    assert info["run"]["models"] == [{"name": "tiny-clip", "kind": "clip", "tier": "S1", "licence": "MIT"}]
    assert info["images"] == str(photos.resolve()) and "timings" not in info["run"]
    file = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert file["info"] == info and [row["id"] for row in file["annotations"]] == [1, 2, 3, 4, 5]
    example = Labeled.read(tmp_path / "out").open(0)
    assert (example.masks == detections([IMAGES["a.png"][0], IMAGES["a.png"][2]]).masks).all()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels.json", "sheet.jpg"]


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        select_labels(run, tmp_path / name, LabelRules(rare=0.4, keep=ByClass(0.5)))
    for file in ("labels.json", "sheet.jpg"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


def test_floors_shares_and_caps(run: Path, tmp_path: Path) -> None:
    floors = LabelRules(min_score=ByClass(0.3, {"dog": 0.5}), drop_empty=True)
    info = select_labels(run, tmp_path / "1", floors, sheet=0)
    assert labels_of(tmp_path / "1") == {"a.png": [("cat", 0.9)], "b/c.png": [("dog", 0.8)], "e.png": [("dog", 0.7)]}
    assert info["counts"]["score"] == 2 and not (tmp_path / "1" / "sheet.jpg").exists()
    shares = select_labels(run, tmp_path / "2", LabelRules(keep=ByClass(1.0, {"dog": 0.6})))
    assert shares["min_scores"]["dog"] == pytest.approx(0.7) and shares["classes"]["dog"]["labels"] == 2
    capped = select_labels(run, tmp_path / "3", LabelRules(per_class=1))
    assert labels_of(tmp_path / "3")["b/c.png"] == [("dog", 0.8)] and labels_of(tmp_path / "3")["e.png"] == [("cow", 0.2)]
    assert capped["counts"]["per_class"] == 2 and capped["counts"]["kept"] == 3


def test_pictures_of_rare_classes_repeat(run: Path, tmp_path: Path) -> None:
    select_labels(run, tmp_path / "out", LabelRules(rare=1.0))
    repeats = Labeled.read(tmp_path / "out").repeats.tolist()  # cat and cow in 1 of 4 images, dog in 3
    assert repeats == pytest.approx([2, (4 / 3) ** 0.5, 1, 2])


def test_an_earlier_round_is_merged_in(run: Path, photos: Path, tmp_path: Path) -> None:
    select_labels(run, tmp_path / "first")
    again: dict[str, Things] = {"b/c.png": [(0, 0.5, (5, 5, 25, 40))], "e.png": [(0, 0.6, (0, 30, 10, 40))], "d.png": []}
    second = write_run(tmp_path / "again", again, photos, ("fox",))
    info = select_labels(second, tmp_path / "second", earlier=tmp_path / "first")
    assert labels_of(tmp_path / "second") == {
        "a.png": [("cat", 0.9), ("dog", 0.4)],  # not in the second run
        "b/c.png": [("fox", 0.5)],  # which lies over the dog
        "d.png": [],
        "e.png": [("dog", 0.7), ("fox", 0.6), ("cow", 0.2)],
    }
    assert info["counts"]["earlier"] == 4 and info["counts"]["earlier_gone"] == 1 and next(iter(info["classes"])) == "fox"
    assert info["earlier"]["info"]["counts"]["found"] == 6
    alike = select_labels(second, tmp_path / "second", LabelRules(agnostic=True, earlier=1.0), earlier=tmp_path / "first")
    assert list(alike["classes"]) == ["object"] and alike["counts"]["earlier"] == 5


def test_an_earlier_round_of_other_pictures(run: Path, photos: Path, tmp_path: Path) -> None:
    select_labels(run, tmp_path / "first")
    second = write_run(tmp_path / "again", IMAGES, tmp_path)
    with pytest.raises(InputError, match="expected earlier labels of the images in"):
        select_labels(second, tmp_path / "second", earlier=tmp_path / "first")
    assert select_labels(second, tmp_path / "second", images=photos, earlier=tmp_path / "first")["counts"]["earlier"] == 0


def test_runs_without_labels(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the rules leave none of 6 things"):
        select_labels(run, tmp_path / "out", LabelRules(min_score=ByClass(0.95)))
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(InputError, match="unknown class 'dgo'; did you mean 'dog'"):
        select_labels(run, tmp_path / "out", LabelRules(min_score=ByClass(0.0, {"dgo": 0.5})))
    with pytest.raises(InputError, match="name them: --images"):
        select_labels(write_run(tmp_path / "lost", IMAGES, None), tmp_path / "out")
    (run / "annotations.json").unlink()
    with pytest.raises(InputError, match="run segment --task instance"):
        select_labels(run, tmp_path / "out")


def test_annotations_out_of_order(run: Path, tmp_path: Path) -> None:
    file: dict[str, Any] = json.loads((run / "annotations.json").read_text())
    file["annotations"].reverse()
    (run / "annotations.json").write_text(json.dumps(file))
    with pytest.raises(InputError, match="image by image"):
        select_labels(run, tmp_path / "out")


def test_pictures_that_are_gone_are_crossed_on_the_sheet(run: Path, tmp_path: Path) -> None:
    select_labels(run, tmp_path / "out", images=tmp_path, sheet=2)
    with PIL.Image.open(tmp_path / "out" / "sheet.jpg") as sheet:
        assert sheet.width > 6 * 240 and sheet.height < 2 * 240
