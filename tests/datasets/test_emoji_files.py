import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import CATEGORIES, Scene, SceneObject
from annofree.errors import InputError
from annofree.formats.coco import CocoFile


def scene(*objects: SceneObject, caption: str = "a cat and a dog") -> Scene:
    """A wide scene, in which each object is a bar of its own."""
    layout = np.zeros((20, 32), np.uint8)
    for i in range(len(objects)):
        layout[2 + i : 18, 8 * i + 1 : 8 * i + 6] = i + 1
    image = np.stack([layout * 60, 255 - layout * 60, layout * 0 + 128], 2).astype(np.uint8)
    return Scene(image, layout, (layout > 0).astype(np.uint8), objects, caption, "plain", "noise")


DOG, CAT, OWL = SceneObject(18, "🐕", False), SceneObject(17, "🐈", False), SceneObject(16, "🦉", True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
def test_scenes_come_back_from_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = {"one": scene(DOG, CAT), "two": scene(OWL, DOG, OWL, caption="two birds and a dog"), "none": scene()}
    made = write_scenes(scenes.items(), tmp_path / "deep" / "out", "three scenes")
    out = tmp_path / "deep" / "out"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "captions.json", "images/none.jpg", "images/one.jpg", "images/two.jpg", "truth.json",
    ]  # fmt: skip
    assert CocoFile.read(out / "truth.json") == made
    assert made.info["description"] == "three scenes" and "OFL" in made.info["licence"]

    coco = COCO(out / "truth.json")
    capsys.readouterr()
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == CATEGORIES
    for id_, (name, truth) in enumerate(scenes.items(), 1):
        (row,) = coco.loadImgs(id_)
        assert row == {
            "id": id_, "file_name": f"{name}.jpg", "height": 20, "width": 32,
            "split": "plain", "background": "noise", "unseen": name == "two",
        }  # fmt: skip
        with PIL.Image.open(out / "images" / row["file_name"]) as image:
            assert np.abs(np.asarray(image).astype(int) - truth.image).mean() < 12
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=id_))
        assert [(a["category_id"], a["emoji"], a["unseen"]) for a in annotations] == [
            (o.category_id, o.emoji, o.held_out) for o in truth.objects
        ]
        for i, annotation in enumerate(annotations):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), truth.mask(i))
            assert annotation["bbox"] == [8 * i + 1, 2 + i, 5, 16 - i] and annotation["area"] == 5 * (16 - i)
            assert annotation["iscrowd"] == 0 and "score" not in annotation


def test_captions_are_coco_captions(tmp_path: Path) -> None:
    write_scenes([("a", scene(DOG, CAT)), ("b", scene(caption="nothing"))], tmp_path, "")
    data = json.loads((tmp_path / "captions.json").read_text(encoding="utf-8"))
    assert [i["file_name"] for i in data["images"]] == ["a.jpg", "b.jpg"]
    assert data["annotations"] == [
        {"id": 1, "image_id": 1, "caption": "a cat and a dog"},
        {"id": 2, "image_id": 2, "caption": "nothing"},
    ]


def test_emoji_are_written_as_they_are(tmp_path: Path) -> None:
    write_scenes([("a", scene(DOG))], tmp_path, "")
    assert "🐕" in (tmp_path / "truth.json").read_text(encoding="utf-8")


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"expected a folder to write scenes to, but .*file cannot be one"):
        write_scenes([], tmp_path / "file", "")


def test_no_scenes(tmp_path: Path) -> None:
    assert write_scenes([], tmp_path, "").images == []
    assert CocoFile.read(tmp_path / "truth.json").annotations == []
