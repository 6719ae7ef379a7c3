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
from annofree.formats.panoptic import PanopticFile
from annofree.render.label_overlay import draw_label_map
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.runs.store.results import average_shares
from annofree.structures import VOID, Detections, Image, LabelMap

IMAGE = Image(np.full((40, 60, 3), 90, np.uint8))


def one_dog(names: tuple[str, ...] = ("cat", "dog")) -> Detections:
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:20, 30:50] = True
    return Detections.from_masks(mask, [1], [0.75], names)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def results(out: Path, given: dict[str, dict[str, Any]], image: Image = IMAGE, **more: Any) -> RunFolder:
    """A run folder with what was found in some images, by id."""
    folder = RunFolder.create(out, more.pop("names", ["cat", "dog"]), **more)
    names = ResultNames(given)
    rows = [folder.record(names.find_names(id_), image.size, image, **found) for id_, found in given.items()]
    folder.finish(lambda: rows, shares=average_shares(lambda: rows))
    folder.write_summary({"method": "zip"})
    return folder


def dogs(*ids: str) -> dict[str, dict[str, Any]]:
    return {id_: {"detections": one_dog()} for id_ in ids}


def test_a_run_leaves_annotations_overlays_and_settings(tmp_path: Path) -> None:
    folder = results(tmp_path / "new" / "out", dogs("sub/a.png"))
    assert files_in(folder.out) == {"annotations.json", "run.json", "overlays/sub/a.jpg"}
    assert read(folder.out / "run.json") == {"method": "zip"}
    coco = read(folder.out / "annotations.json")
    assert list(coco) == ["info", "images", "categories", "annotations"]
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "sub/a.png", "height": 40, "width": 60, "overlay": "overlays/sub/a.jpg"},
    ]
    (row,) = coco["annotations"]
    assert (row["id"], row["image_id"], row["category_id"]) == (1, 1, 2)
    assert (row["bbox"], row["area"], row["score"]) == ([30, 10, 20, 10], 200, 0.75)
    with PIL.Image.open(folder.out / "overlays/sub/a.jpg") as overlay:
        assert overlay.size == (540, 360)


def test_the_file_is_what_json_writes_of_it_at_once(tmp_path: Path) -> None:
    results(tmp_path, dogs("a.png", "ü b.png", "c.png"), tasks=["instance", "panoptic"])
    for name in ("annotations.json", "panoptic.json"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), ensure_ascii=False) + "\n"
    coco = read(tmp_path / "annotations.json")
    assert [(row["id"], row["image_id"]) for row in coco["annotations"]] == [(1, 1), (2, 2), (3, 3)]


def test_the_coco_api_reads_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path, dogs("a.png"))
    coco = COCO(str(tmp_path / "annotations.json"))
    capsys.readouterr()
    # by overlap: pycocotools' own decoding warns under this NumPy
    assert coco_mask.iou([coco.annToRLE(coco.anns[1])], list(one_dog().rles), [0]).tolist() == [[1.0]]


def test_failed_pictures_are_passed_over_and_listed(tmp_path: Path) -> None:
    folder, names = RunFolder.create(tmp_path, ["cat", "dog"]), ResultNames(["a.png", "\udcff.png"])
    rows = [{"failed": "torn", "n": 0}, folder.record(names.find_names("a.png"), (40, 60), detections=one_dog())]
    folder.finish(lambda: rows, [{"id": "\udcff.png", "reason": "torn"}])
    assert read(tmp_path / "quarantine.json") == [{"id": "\udcff.png", "reason": "torn"}]
    assert [row["id"] for row in read(tmp_path / "annotations.json")["images"]] == [1]
    folder.finish(lambda: rows[1:])
    assert not (tmp_path / "quarantine.json").exists()


def test_a_run_that_found_no_picture_to_finish_still_says_what_was_asked(tmp_path: Path) -> None:
    results(tmp_path, {})
    assert read(tmp_path / "annotations.json")["categories"][1] == {"id": 2, "name": "dog"}


def test_overlays_are_left_out_where_there_is_no_picture_or_none_are_asked_for(tmp_path: Path) -> None:
    results(tmp_path, {"a.png": {"detections": one_dog(), "labels": labeled()}}, tasks=["instance"], overlays=False)
    assert not [f for f in files_in(tmp_path) if f.startswith("overlays")]
    assert "overlay" not in read(tmp_path / "annotations.json")["images"][0]


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png", "a.JPG"), ("a.png", "./a.png", "A.png"), ("x/a.png", "y/a.png", "z/a.png")]
)
def test_pictures_of_one_stem_keep_an_overlay_each(tmp_path: Path, names: tuple[str, ...]) -> None:
    results(tmp_path, dogs(*names))
    rows = read(tmp_path / "annotations.json")["images"]
    assert [row["file_name"] for row in rows] == list(names)
    assert len({row["overlay"].lower() for row in rows}) == len(names)
    assert {row["overlay"] for row in rows} == {f for f in files_in(tmp_path) if f.startswith("overlays/")}


@pytest.mark.parametrize("name", ["../../a.png", "/elsewhere/a.png", "../.a.png"])
def test_overlays_stay_in_their_folder_and_in_sight(tmp_path: Path, name: str) -> None:
    results(tmp_path / "out", dogs(name))
    assert {f for f in files_in(tmp_path) if not f.endswith(".json")} == {"out/overlays/a.jpg"}


def test_a_folder_that_is_called_as_a_result_is_no_obstacle(tmp_path: Path) -> None:
    results(tmp_path, dogs("a.png", "a.jpg/b.png", "a.jpg/c.jpg/d.e.png", "a.jpg/c.png"))
    rows = read(tmp_path / "annotations.json")["images"]
    assert {row["overlay"] for row in rows} == {f for f in files_in(tmp_path) if f.startswith("overlays/")}
    assert len(rows) == 4


def test_names_that_are_long_or_not_unicode_do_no_harm(tmp_path: Path) -> None:
    results(tmp_path, dogs("橙" * 80 + ".png", "\udcff.png", "line\nfeed.png"))
    named = [row["file_name"] for row in read(tmp_path / "annotations.json")["images"]]
    assert named == ["橙" * 80 + ".png", "%FF.png", "line\nfeed.png"]


def test_names_depend_on_the_pictures_and_not_on_what_became_of_them() -> None:
    ids = ["a.png", "a.jpg", "x/a.png", "a:b.png"]
    names = ResultNames(ids)
    assert [names.find_names(id_) for id_ in ids] == [ResultNames(ids).find_names(id_) for id_ in ids]
    assert [names.find_names(id_).stem for id_ in ids] == ["a", "a.jpg", "x/a", "a:b"]
    assert names.find_names("a:b.png").portable == "a_b"


def test_a_picture_longer_than_a_jpeg_can_be_gets_a_smaller_overlay(tmp_path: Path) -> None:
    wide = Image(np.zeros((2, 70_000, 3), np.uint8))
    results(tmp_path, {"wide.png": {"detections": Detections.none((2, 70_000), ["cat"])}}, wide, names=["cat"])
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


def test_names_that_were_not_asked_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\['dog'\], got \['cat', 'dog'\]"):
        results(tmp_path, dogs("a.png"), names=["dog"])
    with pytest.raises(InputError, match=r"label maps of the classes \['cat'\], got \['dog'\] too"):
        results(tmp_path, {"a.png": {"labels": labeled()}}, names=["cat"])
    assert files_in(tmp_path) == set()


# Label maps and panoptic maps

LABELS = ("background", "cat", "dog")


def labeled(share: int = 20, names: tuple[str, ...] = LABELS) -> LabelMap:
    """A dog of ``share`` rows of 40, a column of void, and the background."""
    labels = np.zeros((40, 60), np.int32)
    labels[:share] = 2
    labels[:, 0] = VOID
    return LabelMap(labels, names, 0)


def segmented(id_: int = 1) -> tuple[Any, list[dict[str, Any]]]:
    segments = np.zeros((40, 60), np.int32)
    segments[10:20, 30:50] = id_
    return segments, [{"id": id_, "category_id": 2, "area": 200, "bbox": [30, 10, 20, 10], "iscrowd": 0, "score": 0.75}]


def everything(name: str, k: int = 1) -> dict[str, dict[str, Any]]:
    return {name: {"detections": one_dog(), "labels": labeled(20), "segments": segmented(k)}}


ALL = ("instance", "semantic", "panoptic")


def test_all_tasks_leave_their_files(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", everything("sub/a.png"), tasks=ALL, stuff=["cat"])
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
    assert {path.relative_to(folder.out).as_posix() for path in folder.written} == {
        f for f in files_in(folder.out) if f.endswith((".jpg", ".png")) or "classes" in f
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
    file = PanopticFile.read(folder.out / "panoptic.json")
    assert [(c["id"], c["name"], c["isthing"]) for c in file.categories] == [(1, "cat", 0), (2, "dog", 1)]
    assert np.array_equal(file.read_segments(file.annotations[0]), segmented()[0])
    assert file.annotations[0]["segments_info"] == segmented()[1]


def test_label_maps_are_read_as_they_were(tmp_path: Path) -> None:
    shares = {"a.png": 20, "b.png": 40}
    folder = results(tmp_path, {name: {"labels": labeled(k)} for name, k in shares.items()}, tasks=["semantic"])
    classes = ClassList.read(folder.out / "labels")
    assert classes == ClassList(LABELS, 0, 255)
    for name, share in shares.items():
        found = read_label_map(folder.out / "labels" / name, classes)
        assert np.array_equal(found.labels, labeled(share).labels)
    sheet = draw_label_map(IMAGE, labeled(20))
    with PIL.Image.open(folder.out / "overlays-semantic" / "a.jpg") as drawn:
        assert drawn.size == sheet.size
        assert np.abs(np.asarray(drawn, float) - np.asarray(sheet, float)).mean() < 4


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    results(tmp_path, {"a.png": {"labels": labeled(), "segments": segmented()}}, tasks=["semantic"])
    assert files_in(tmp_path) == {
        "run.json",
        "labels/classes.json",
        "labels/shares.json",
        "labels/a.png",
        "overlays-semantic/a.jpg",
    }


def test_shares_are_means_over_the_pictures(tmp_path: Path) -> None:
    assert average_shares(list) == {}
    results(tmp_path, {"a.png": {"labels": labeled(10)}, "b.png": {"labels": labeled(40)}}, tasks=["semantic"])
    seen = 59 / 60  # one column of 60 is void
    text = (tmp_path / "labels" / "shares.json").read_text(encoding="utf-8")
    written = json.loads(text)
    assert text == json.dumps(written, indent=2) + "\n"
    assert written["mean"] == pytest.approx({"dog": seen * (0.25 + 1) / 2, "background": seen * 0.75 / 2})
    assert list(written["mean"]) == ["dog", "background"]
    assert written["pictures"] == {
        "a": pytest.approx({"background": seen * 0.75, "dog": seen * 0.25}),
        "b": pytest.approx({"dog": seen}),
    }


def test_nothing_done_leaves_nothing_but_what_was_asked(tmp_path: Path) -> None:
    results(tmp_path, {}, tasks=["semantic", "panoptic"])
    assert files_in(tmp_path) == {"run.json", "panoptic.json"}
    assert PanopticFile.read(tmp_path / "panoptic.json").annotations == []


def test_many_names_are_written_in_16_bits(tmp_path: Path) -> None:
    names = tuple(f"thing {k}" for k in range(300))
    labels = np.tile(np.arange(60, dtype=np.int32) * 5, (40, 1))
    labels[0] = VOID
    results(tmp_path, {"a.png": {"labels": LabelMap(labels, names)}}, names=names, tasks=["semantic"])
    with PIL.Image.open(tmp_path / "labels" / "a.png") as image:
        assert image.mode == "I;16"
    classes = ClassList.read(tmp_path / "labels")
    assert classes.void == 65535
    assert np.array_equal(read_label_map(tmp_path / "labels" / "a.png", classes).labels, labels)


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.png", "A.JPG"),
        ("x/a.png", "x/./a.png", "y/a.png"),
        ("1:2.png", "1_2.png", "1:2.jpg", "1_2-2.png"),
        ("a\\b.png", "a_b.png", "a/b.png"),
        ("v1.0/a.b.png", "v1.0/a.c.png", "v1.0.png"),
        ("t.tar::a.png", "t.tar::b/../a.png", "t.tar::/a.png"),
    ],
)
def test_pictures_of_one_stem_keep_their_own_maps(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = {name: {"detections": one_dog(), "labels": labeled(k), "segments": segmented(k)} for k, name in enumerate(names, 1)}
    folder = results(tmp_path / "out", found, tasks=ALL)
    rows = read(folder.out / "annotations.json")["images"]
    assert [row["file_name"] for row in rows] == list(names)
    for key, place in (("overlay", "overlays/"), ("labels", "labels/"), ("panoptic", "panoptic/")):
        assert {row[key] for row in rows} == {f for f in files_in(folder.out) if f.startswith(place) and "json" not in f}
        assert len({row[key].casefold() for row in rows}) == len(names)
    classes, file = ClassList.read(folder.out / "labels"), PanopticFile.read(folder.out / "panoptic.json")
    maps = {f"panoptic/{row['file_name']}": row for row in file.annotations}
    for k, row in enumerate(rows, 1):
        assert np.array_equal(read_label_map(folder.out / row["labels"], classes).labels, labeled(k).labels)
        assert file.read_segments(maps[row["panoptic"]]).max() == k
