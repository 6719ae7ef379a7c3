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
from annofree.formats.label_maps import ClassList, read_label_map
from annofree.formats.legend import draw_label_map
from annofree.formats.panoptic import PanopticFile
from annofree.formats.run_folder import RunFolder
from annofree.structures import VOID, Detections, Image, LabelMap

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


# Label maps and panoptic maps

LABELS = ("background", "cat", "dog")


def labelled(share: int = 20, names: tuple[str, ...] = LABELS) -> LabelMap:
    """A dog of ``share`` rows of 40, a column of void, and the background."""
    labels = np.zeros((40, 60), np.int32)
    labels[:share] = 2
    labels[:, 0] = VOID
    return LabelMap(labels, names, 0)


def segmented(id_: int = 1) -> tuple[Any, list[dict[str, Any]]]:
    segments = np.zeros((40, 60), np.int32)
    segments[10:20, 30:50] = id_
    return segments, [{"id": id_, "category_id": 2, "area": 200, "bbox": [30, 10, 20, 10], "iscrowd": 0, "score": 0.75}]


def folder_of(tmp_path: Path, *tasks: str) -> RunFolder:
    return RunFolder.create(tmp_path / "out", ["cat", "dog"], root=tmp_path, tasks=tasks, stuff=["cat"])


def test_all_tasks_leave_their_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "instance", "semantic", "panoptic")
    picture = tmp_path / "sub" / "a.png"
    folder.add_answers(picture, PICTURE, detections=one_dog(), labels=labelled(), segments=segmented())
    folder.finish({"shares": folder.shares()})
    assert files_in(folder.out) == {
        "run.json",
        "annotations.json",
        "overlays/sub/a.jpg",
        "labels/classes.json",
        "labels/shares.json",
        "labels/sub/a.png",
        "overlays-semantic/sub/a.jpg",
        "panoptic.json",
        "panoptic/sub/a.png",
    }
    (row,) = read(folder.out / "annotations.json")["images"]
    assert row == {
        "id": 1,
        "file_name": "sub/a.png",
        "height": 40,
        "width": 60,
        "overlay": "overlays/sub/a.jpg",
        "labels": "labels/sub/a.png",
        "panoptic": "panoptic/sub/a.png",
    }
    assert (folder.images, folder.instances) == (1, 1)
    file = PanopticFile.read(folder.out / "panoptic.json")
    assert [(c["id"], c["name"], c["isthing"]) for c in file.categories] == [(1, "cat", 0), (2, "dog", 1)]
    assert np.array_equal(file.segments(file.annotations[0]), segmented()[0])
    assert file.annotations[0]["segments_info"] == segmented()[1]


def test_label_maps_are_read_as_they_were(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "semantic")
    for share, name in ((20, "a.png"), (40, "b.png")):
        folder.add_answers(tmp_path / name, PICTURE, labels=labelled(share))
    folder.finish({})
    classes = ClassList.read(folder.out / "labels")
    assert classes == ClassList(LABELS, 0, 255)
    for share, name in ((20, "a.png"), (40, "b.png")):
        found = read_label_map(folder.out / "labels" / name, classes)
        assert np.array_equal(found.labels, labelled(share).labels)
    sheet = draw_label_map(PICTURE, labelled(20))
    with PIL.Image.open(folder.out / "overlays-semantic" / "a.jpg") as drawn:
        assert drawn.size == sheet.size
        assert np.abs(np.asarray(drawn, float) - np.asarray(sheet, float)).mean() < 4


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "semantic")
    folder.add_answers(tmp_path / "a.png", PICTURE, labels=labelled(), segments=segmented())
    folder.finish({})
    assert files_in(folder.out) == {
        "run.json",
        "labels/classes.json",
        "labels/shares.json",
        "labels/a.png",
        "overlays-semantic/a.jpg",
    }
    assert (folder.images, folder.instances) == (1, 0)


def test_shares_are_means_over_the_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "semantic")
    assert folder.shares() == {}
    for share, name in ((10, "a.png"), (40, "b.png")):
        folder.add_answers(tmp_path / name, PICTURE, labels=labelled(share))
    seen = 59 / 60  # one column of 60 is void
    assert folder.shares() == pytest.approx({"dog": seen * (0.25 + 1) / 2, "background": seen * 0.75 / 2})
    assert list(folder.shares()) == ["dog", "background"]
    folder.finish({})
    written = read(folder.out / "labels" / "shares.json")
    assert written["mean"] == folder.shares()
    assert written["pictures"] == {
        "a": pytest.approx({"background": seen * 0.75, "dog": seen * 0.25}),
        "b": pytest.approx({"dog": seen}),
    }


def test_nothing_done_leaves_nothing_but_what_was_asked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "semantic", "panoptic")
    folder.finish({})
    assert files_in(folder.out) == {"run.json", "panoptic.json"}
    assert PanopticFile.read(folder.out / "panoptic.json").annotations == []


def test_many_names_are_written_in_16_bits(tmp_path: Path) -> None:
    names = tuple(f"thing {k}" for k in range(300))
    folder = RunFolder.create(tmp_path, names, tasks=["semantic"])
    labels = np.tile(np.arange(60, dtype=np.int32) * 5, (40, 1))
    labels[0] = VOID
    folder.add_answers(Path("a.png"), PICTURE, labels=LabelMap(labels, names))
    with PIL.Image.open(tmp_path / "labels" / "a.png") as picture:
        assert picture.mode == "I;16"
    classes = ClassList.read(tmp_path / "labels")
    assert classes.void == 65535
    assert np.array_equal(read_label_map(tmp_path / "labels" / "a.png", classes).labels, labels)


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.png", "A.JPG"),
        ("x/a.png", "x/a.png", "y/a.png"),
        ("1:2.png", "1_2.png", "1:2.jpg", "1_2-2.png"),
        ("a\\b.png", "a_b.png", "a/b.png"),
        ("v1.0/a.b.png", "v1.0/a.c.png", "v1.0.png"),
    ],
)
def test_pictures_of_one_stem_keep_their_own_maps(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = folder_of(tmp_path, "instance", "semantic", "panoptic")
    for k, name in enumerate(names, 1):
        folder.add_answers(tmp_path / name, PICTURE, detections=one_dog(), labels=labelled(k), segments=segmented(k))
    folder.finish({})
    rows = read(folder.out / "annotations.json")["images"]
    assert [row["file_name"] for row in rows] == list(names)
    for key, place in (("overlay", "overlays/"), ("labels", "labels/"), ("panoptic", "panoptic/")):
        assert {row[key] for row in rows} == {f for f in files_in(folder.out) if f.startswith(place) and "json" not in f}
        assert len({row[key].casefold() for row in rows}) == len(names)
    classes, file = ClassList.read(folder.out / "labels"), PanopticFile.read(folder.out / "panoptic.json")
    maps = {f"panoptic/{row['file_name']}": row for row in file.annotations}
    for k, row in enumerate(rows, 1):
        assert np.array_equal(read_label_map(folder.out / row["labels"], classes).labels, labelled(k).labels)
        assert file.segments(maps[row["panoptic"]]).max() == k


def test_maps_of_pictures_elsewhere_stay_in_the_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "out", ["cat", "dog"], tasks=["semantic", "panoptic"])
    folder.add_answers(Path("/elsewhere/a.png"), PICTURE, labels=labelled(), segments=segmented())
    folder.add_answers(Path("../../a.png"), PICTURE, labels=labelled(), segments=segmented())
    folder.finish({})
    maps = {f for f in files_in(tmp_path) if f.endswith(".png") and "panoptic" in f}
    assert maps == {"out/panoptic/a.png", "out/panoptic/a.png.png"}
    assert {f for f in files_in(tmp_path) if not f.startswith("out/")} == set()


def test_detections_beside_labels_have_the_classes_of_the_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "instance", "semantic")
    with pytest.raises(InputError, match=r"expected detections of the classes \['cat', 'dog'\]"):
        folder.add_answers(tmp_path / "a.png", PICTURE, detections=one_dog(("cat", "hound")), labels=labelled())
    assert files_in(folder.out) == set()
