import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from annofree.errors import InputError
from annofree.formats.run_folder import RunFolder
from annofree.structures import Detections, Image

PICTURE = Image(np.full((40, 60, 3), 90, np.uint8))


def one_dog(names: tuple[str, ...] = ("cat", "dog")) -> Detections:
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:20, 30:50] = True
    return Detections.from_masks(mask, [1], [0.75], names)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_annotations_overlays_and_settings(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "new" / "out", ["cat", "dog"], root=tmp_path / "photos")
    folder.add(tmp_path / "photos" / "sub" / "a.png", PICTURE, one_dog())
    folder.finish({"method": "zip"})

    assert files_in(folder.out) == {"annotations.json", "run.json", "overlays/sub/a.jpg"}
    assert read(folder.out / "run.json") == {"method": "zip"}
    coco = read(folder.out / "annotations.json")
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "sub/a.png", "height": 40, "width": 60, "overlay": "overlays/sub/a.jpg"},
    ]
    (row,) = coco["annotations"]
    assert (row["id"], row["image_id"], row["category_id"]) == (1, 1, 2)
    assert (row["bbox"], row["area"], row["score"]) == ([30, 10, 20, 10], 200, 0.75)
    with PIL.Image.open(folder.out / "overlays/sub/a.jpg") as overlay:
        assert overlay.size == (540, 360)


def test_the_coco_api_reads_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(tmp_path, ["cat", "dog"])
    folder.add(Path("a.png"), PICTURE, one_dog())
    folder.finish({})
    coco = COCO(str(tmp_path / "annotations.json"))
    capsys.readouterr()
    # by overlap: pycocotools' own decoding warns under this NumPy
    assert coco_mask.iou([coco.annToRLE(coco.anns[1])], list(one_dog().rles), [0]).tolist() == [[1.0]]


def test_what_was_done_before_an_interruption_is_kept(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ["cat", "dog"])
    with pytest.raises(KeyboardInterrupt):
        try:
            folder.add(Path("a.png"), PICTURE, one_dog())
            raise KeyboardInterrupt
        finally:
            folder.finish({"complete": False})
    assert len(read(tmp_path / "annotations.json")["annotations"]) == 1


def test_a_run_that_found_no_picture_to_finish_still_says_what_was_asked(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, ["cat", "dog"]).finish({})
    assert read(tmp_path / "annotations.json")["categories"][1] == {"id": 2, "name": "dog"}


def test_annotations_are_kept_even_if_the_settings_cannot_be_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ["cat", "dog"])
    folder.add(Path("a.png"), PICTURE, one_dog())
    with pytest.raises(TypeError):
        folder.finish({"out": tmp_path})
    assert files_in(tmp_path) == {"annotations.json", "overlays/a.jpg"}


@pytest.mark.parametrize("names", [("a.jpg", "a.png", "a.JPG"), ("a.png", "a.png", "a.png"), ("x/a.png", "y/a.png", "z/a.png")])
def test_pictures_of_one_stem_keep_an_overlay_each(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = RunFolder.create(tmp_path, ["cat", "dog"])
    for name in names:
        folder.add(Path(name), PICTURE, one_dog())
    folder.finish({})
    rows = read(tmp_path / "annotations.json")["images"]
    assert [row["file_name"] for row in rows] == list(names)
    assert len({row["overlay"].lower() for row in rows}) == len(names)
    assert {row["overlay"] for row in rows} == {f for f in files_in(tmp_path) if f.startswith("overlays/")}


@pytest.mark.parametrize("name", ["../../a.png", "/elsewhere/a.png"])
@pytest.mark.parametrize("with_root", [True, False])
def test_overlays_stay_in_their_folder(tmp_path: Path, name: str, with_root: bool) -> None:
    folder = RunFolder.create(tmp_path / "out", ["cat", "dog"], root=tmp_path / "photos" if with_root else None)
    folder.add(Path(name), PICTURE, one_dog())
    assert files_in(tmp_path) == {"out/overlays/a.jpg"}


def test_names_that_are_long_or_not_unicode_do_no_harm(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ["cat", "dog"])
    folder.add(Path("橙" * 80 + ".png"), PICTURE, one_dog())
    folder.add(Path("\udcff.png"), PICTURE, one_dog())
    folder.finish({})
    assert [row["file_name"] for row in read(tmp_path / "annotations.json")["images"]] == ["橙" * 80 + ".png", "\ufffd.png"]


def test_a_picture_longer_than_a_jpeg_can_be_gets_a_smaller_overlay(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ["cat"])
    folder.add(Path("wide.png"), Image(np.zeros((2, 70_000, 3), np.uint8)), Detections.none((2, 70_000), ["cat"]))
    with PIL.Image.open(tmp_path / "overlays" / "wide.jpg") as overlay:
        assert overlay.width == 65_500


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(InputError, match=r"a file is in the way of .*taken.*choose another --out"):
            RunFolder.create(out, ["cat"])
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="Read-only file system; choose another --out"):
        RunFolder.create(tmp_path, ["cat"])


def test_detections_of_other_classes_are_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, ["dog"])
    with pytest.raises(InputError, match=r"\['dog'\], got \['cat', 'dog'\]"):
        folder.add(Path("a.png"), PICTURE, one_dog())
