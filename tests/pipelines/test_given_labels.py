"""Labels that people corrected, put in the place of those that a learning chose."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.serving import make_photos, make_workspace, open_client

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.pipelines.learning.given_labels import GivenLabels
from annofree.pipelines.training.finetune import finetune
from annofree.runs.inputs import open_inputs
from annofree.structures import Vocabulary

SIZE = (8, 12)


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    """A workspace where a.jpg was reviewed, and b c.png is known to have nothing."""
    workspace = make_workspace(tmp_path / "out", make_photos(tmp_path / "photos"))
    with open_client(workspace) as client:
        for id_, act in (("a.jpg", "accept"), ("b c.png", "delete")):
            one = client.get(f"/api/images/{id_}/answer").json()["instances"][0]["id"]
            body = {"acts": [{"act": act, "instance": one}, {"act": "reviewed"}], "revision": 0}
            assert client.post(f"/api/images/{id_}/acts", json=body).status_code == 200
    return tmp_path / "out"


def test_given_labels_take_the_place_of_chosen_ones(corrections: Path, tmp_path: Path) -> None:
    inputs, names, notes = open_inputs(tmp_path / "photos"), Vocabulary.of("cat, dog"), list[str]()
    given = GivenLabels.read(corrections, tmp_path / "learned", names, inputs, notes.append)
    assert set(given.images) == {"a.jpg", "b c.png"} and "2 images have the labels that people gave them" in notes
    chosen = CocoFile.with_categories({1: "cat", 2: "dog"})
    for name in ("deep/d.jpg", "a.jpg", "b c.png"):
        id_ = chosen.add_image(name, SIZE, repeat=2.0)
        chosen.add_annotations([{"image_id": id_, "category_id": 1, "segmentation": [], "bbox": [0, 0, 1, 1], "area": 1}] * 2)
    place = tmp_path / "labels.json"
    chosen.write(place)
    given.write_into(place)
    made = CocoFile.read(place)
    names_of = {image["id"]: image["file_name"] for image in made.images}
    rows = [(names_of[row["image_id"]], row["category_id"], row.get("who")) for row in made.annotations]
    assert rows == [("deep/d.jpg", 1, None), ("deep/d.jpg", 1, None), ("a.jpg", 2, "ann")]
    assert [row["id"] for row in made.annotations] == [1, 2, 3] and set(names_of.values()) == {"deep/d.jpg", "a.jpg", "b c.png"}
    given.write_into(tmp_path / "alone" / "labels.json")
    assert len(CocoFile.read(tmp_path / "alone" / "labels.json").annotations) == 1


def test_what_is_resumed_has_the_same_given_labels(corrections: Path, tmp_path: Path) -> None:
    inputs, names = open_inputs(tmp_path / "photos"), Vocabulary.of("dog")
    first = GivenLabels.read(corrections, tmp_path / "learned", names, inputs, lambda text: None)
    workspace = make_workspace(corrections, tmp_path / "photos")
    with open_client(workspace) as client:
        client.post("/api/images/a.jpg/undo")
    again = GivenLabels.read(corrections, tmp_path / "learned", names, inputs, lambda text: None)
    assert again.rows == first.rows


def test_finetune_takes_labels_or_corrections(corrections: Path, tmp_path: Path) -> None:
    for labels, given in ((None, None), (tmp_path / "labels.json", corrections)):
        with pytest.raises(InputError, match="expected --labels or --corrections"):
            finetune(tmp_path, labels, tmp_path / "tuned", corrections=given)
    with pytest.raises(InputError, match="neither"):
        finetune(tmp_path, None, tmp_path / "tuned", corrections=tmp_path / "photos")
