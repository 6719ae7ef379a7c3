"""Every format: written, read back by us and by others, and what the report says of it."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage, Annotation, build_coco_file, list_images, list_names
from annofree.formats.coco import CocoFile
from annofree.formats.registry import FORMATS, export, find_format, read
from annofree.formats.values import read_image_size
from annofree.formats.voc import to_voc_box
from annofree.ops.brush import decode_brush, encode_brush
from annofree.ops.palette import make_palette, to_hex
from annofree.ops.rle import decode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2

Mask = npt.NDArray[np.bool_]

NASTY = [
    "no",
    "null",
    "1e3",
    "012",
    "on",
    "a/b",
    'say "hi"',
    "it's",
    "__x__",
    "größe",
    "狗 🐶",
    "a: b",
    "- c",
    "#d",
    "<&>",
    "~",
    "a\\n",
]
EXACT = ["coco", "coco-polygons", "yolo-seg", "labelme", "label-studio", "cvat"]  # to the pixel, whatever overlaps
SCORED = ["coco", "coco-polygons", "labelme", "label-studio"]


def ring() -> Mask:
    """A 3 x 3 ring at x 1, y 1 of an image of 5 x 8."""
    mask = np.zeros((5, 8), bool)
    mask[1:4, 1:4], mask[2, 2] = True, False
    return mask


def block() -> Mask:
    """A block of 2 x 3 pixels at x 5, y 3 of the same image, to its border."""
    mask = np.zeros((5, 8), bool)
    mask[3:5, 5:8] = True
    return mask


@pytest.fixture
def file() -> CocoFile:
    """A ring and a block in one image, another image that is empty, and a name that is nowhere."""
    things = (Annotation.of_mask("dog", ring(), 0.75), Annotation.of_mask("cat", block(), 0.5))
    return build_coco_file(
        ["cat", "dog", "cow"], [AnnotatedImage("a b/1.jpg", (5, 8), things), AnnotatedImage("ü.png", (4, 6))]
    )


def masks(file: CocoFile) -> list[list[tuple[str, Any]]]:
    return [[(t.name, None if t.rle is None else decode_rle(t.rle).tolist()) for t in p.things] for p in list_images(file)]


@pytest.mark.parametrize("name", EXACT)
def test_what_is_written_is_read(name: str, file: CocoFile, tmp_path: Path) -> None:
    report = export(file, name, tmp_path / "out")
    back = read(name, tmp_path / "out")
    by_name = {p.file_name: p for p in list_images(back)}
    assert sorted(by_name) == ["a b/1.jpg", "ü.png"]
    assert list_names(back) == list_names(file) and back.categories[0]["id"] == 1
    things = by_name["a b/1.jpg"].things
    assert [(t.name, decode_rle(t.rle).tolist()) for t in things if t.rle] == [
        ("dog", ring().tolist()),
        ("cat", block().tolist()),
    ]
    assert [t.score for t in things] == ([0.75, 0.5] if name in SCORED else [None, None])
    assert not by_name["ü.png"].things and by_name["ü.png"].size == (4, 6)
    assert report.losses == ([] if name in SCORED else ["2 scores"])
    assert report.mask_iou == {"mean": 1.0, "min": 1.0} and report.exact == report.masks == 2


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=12, deadline=None)
@given(st.lists(arrays(bool, (7, 9)), min_size=1, max_size=3))
def test_any_mask_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str, drawn: list[Mask]) -> None:
    there = [m for m in drawn if m.any()]
    file = build_coco_file(["a"], [AnnotatedImage("p.png", (7, 9), tuple(Annotation.of_mask("a", m) for m in there))])
    out = tmp_path_factory.mktemp("any") / "out"
    report = export(file, name, out)
    assert masks(read(name, out)) == masks(file)
    assert report.losses == [] and report.found == len(there)


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "png"])
def test_names_stay_as_they_are(name: str, tmp_path: Path) -> None:
    grid = np.eye(len(NASTY) * 2, dtype=bool)[::2]
    things = tuple(
        Annotation.of_mask(n, np.repeat(np.repeat(row[None], 2, 0), 2, 1)) for n, row in zip(NASTY, grid, strict=True)
    )
    file = build_coco_file(reversed(NASTY), [AnnotatedImage("p.jpg", (2, len(NASTY) * 4), things)])
    report = export(file, name, tmp_path / "out")
    back = read(name, tmp_path / "out")
    assert [t.name for t in list_images(back)[0].things] == NASTY
    assert list_names(back) == tuple(reversed(NASTY)) and not report.renamed and not report.classes_lost


@pytest.mark.parametrize("name", FORMATS)
def test_progress_counts_each_picture_twice(name: str, file: CocoFile, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    export(file, name, tmp_path / "out", on_progress=lambda *step: steps.append(step))
    count = len(file.images)
    assert {total for _, total in steps} == {2 * count}
    assert [done for done, _ in steps[-1 - count :]] == list(range(count, 2 * count + 1))  # compared once, written before


def test_names_of_index_pngs_stay_too(tmp_path: Path) -> None:
    file = build_coco_file([*NASTY, "background"], [AnnotatedImage("p.jpg", (5, 8), (Annotation.of_mask("no", ring()),))])
    assert not export(file, "png", tmp_path / "out").losses
    assert list_names(read("png", tmp_path / "out")) == (*NASTY, "background")


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_of_one_name_do_not_meet(name: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    places = ["a/1.jpg", "b/1.jpg", "a/1.png", "images/Ö x.jpg", "A/1.jpg"]
    images = []
    for k, place in enumerate(places):
        (photos / place).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 5), (50 * k, 0, 0)).save(photos / place, "PNG")
        mask = np.zeros((5, 8), bool)
        mask[k, k : k + 2] = True
        images.append(AnnotatedImage(place, (5, 8), (Annotation.of_mask("x", mask),)))
    report = export(build_coco_file(["x"], images), name, tmp_path / "out", images="copy", image_root=photos)
    assert report.found == 5 and not report.pictures_lost and not report.lost
    folder = tmp_path / "out" / FORMATS[name].images
    copied = [folder / report.pictures_renamed.get(place, place) for place in places]
    assert len({str(path).casefold() for path in copied}) == 5
    for k, path in enumerate(copied):
        with PIL.Image.open(path) as image:
            assert image.getpixel((0, 0)) == (50 * k, 0, 0)
    assert (tmp_path / "out").stat().st_mode == photos.stat().st_mode  # a folder as mkdir makes it, not a scratch one


def test_coco_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    export(file, "coco", tmp_path / "out")
    data = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert data["categories"][0] == {"supercategory": "thing", "id": 1, "name": "cat"}
    first = data["annotations"][0]
    counts = first.pop("segmentation")["counts"]
    assert isinstance(counts, str) and np.array_equal(oracle.decode({"size": [5, 8], "counts": counts}), ring())
    assert first == {
        "id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 3, 3], "area": 8, "iscrowd": 0, "score": 0.75,
    }  # fmt: skip


def test_coco_polygons_are_laid_out_so(file: CocoFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(file, "coco-polygons", tmp_path / "out")
    data = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert data["annotations"][1]["segmentation"] == [[5, 3, 8, 3, 8, 5, 5, 5]]
    theirs = COCO(str(tmp_path / "out" / "annotations.json"))  # pycocotools loads it
    assert [theirs.annToMask(a).astype(bool).tolist() for a in theirs.loadAnns([1, 2])] == [ring().tolist(), block().tolist()]


def test_all_masks_of_coco_are_read(tmp_path: Path) -> None:
    rows = [
        [[1, 0, 3, 0, 3, 2, 1, 2]],
        {"size": [2, 3], "counts": [2, 4]},
        {"size": [2, 3], "counts": "24"},
        [],
        [[0, 0, 1, 1]],
    ]
    file = CocoFile.with_categories({5: "x"})
    file.add_image("p.jpg", (2, 3))
    file.add_annotations([{"image_id": 1, "category_id": 5, "segmentation": s, "bbox": [0, 0, 1, 1]} for s in rows])
    file.write(tmp_path / "t.json")
    things = list_images(read("coco", tmp_path / "t.json"))[0].things
    right = [[False, True, True]] * 2
    assert [None if t.rle is None else decode_rle(t.rle).tolist() for t in things] == [right, right, right, None, None]


def test_ids_and_all_else_of_a_ground_truth_stay(tmp_path: Path) -> None:
    truth = CocoFile(
        [{"id": 70, "file_name": "p.jpg", "height": 5, "width": 8, "license": 3}],
        [{"id": 18, "name": "dog", "supercategory": "animal"}],
    )
    crowd = {"size": [5, 8], "counts": [0, 40]}
    row = {"image_id": 70, "category_id": 18, "segmentation": crowd, "bbox": [0, 0, 8, 5], "iscrowd": 1, "id": 9, "area": 40}
    truth.annotations.append(row)
    assert export(truth, "coco", tmp_path / "coco").losses == []
    back = read("coco", tmp_path / "coco")
    assert (back.images, back.categories) == (truth.images, truth.categories)
    assert {**back.annotations[0], "segmentation": crowd} == row
    left = export(truth, "cvat", tmp_path / "cvat").losses
    assert left == ["1 crowd regions, left out", "category ids, numbered anew"]
    for name in ("voc", "labelme", "coco-polygons"):
        export(truth, name, tmp_path / name)
        assert list_images(read(name, tmp_path / name))[0].things[0].crowd


def test_yolo_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    export(file, "yolo-seg", tmp_path / "seg")
    export(file, "yolo-det", tmp_path / "det")
    labels = tmp_path / "seg" / "labels" / "train"
    lines = (labels / "a b" / "1.txt").read_text().splitlines()
    assert lines[1] == "0 0.625 0.6 1 0.6 1 1 0.625 1"
    assert lines[0] == "1 0.125 0.2 0.25 0.4 0.375 0.4 0.375 0.6 0.25 0.6 0.25 0.4 0.125 0.2 0.5 0.2 0.5 0.8 0.125 0.8"
    assert (labels / "ü.txt").read_bytes() == b""
    assert (tmp_path / "det/labels/train/a b/1.txt").read_text() == "1 0.3125 0.5 0.375 0.6\n0 0.8125 0.8 0.375 0.4\n"
    data = yaml.safe_load((tmp_path / "seg" / "data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/train", "names": {0: "cat", 1: "dog", 2: "cow"}}


def test_yolo_of_others_is_read(tmp_path: Path) -> None:
    """Names as a list, sizes from the images, turned upright; no label file is an empty image."""
    for k, name in enumerate(["a.jpg", "b.jpg"]):
        place = tmp_path / "valid" / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        exif = PIL.Image.Exif()
        exif[0x0112] = 6 if k else 1
        PIL.Image.new("RGB", (10, 4)).save(place, exif=exif)
    (tmp_path / "valid" / "labels").mkdir()
    (tmp_path / "valid" / "labels" / "a.txt").write_text("1 .5 .5 .2 .5\n\n0 0 0 0.5 0 0.5 1 0 1\n")
    (tmp_path / "data.yaml").write_text("train: valid/images\nval: valid/images\nnames: [cat, 3]\n")
    a, b = list_images(read("yolo-seg", tmp_path / "data.yaml"))
    assert (a.file_name, a.size, b.size) == ("a.jpg", (4, 10), (10, 4)) and not b.things
    assert a.things[0].name == "3" and np.allclose(a.things[0].box, (4, 1, 6, 3)) and a.things[0].rle is None
    assert a.things[1].rle and decode_rle(a.things[1].rle).sum() == 20 and a.things[1].box == (0, 0, 5, 4)
    assert read_image_size(tmp_path / "valid" / "images" / "b.jpg") == (10, 4)
    (tmp_path / "valid" / "labels" / "a.txt").write_text("7 .5 .5 .2 .5\n")
    with pytest.raises(InputError, match=r"a\.txt, line 1"):
        read("yolo-seg", tmp_path)


def test_voc_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    report = export(file, "voc", tmp_path / "out")
    root = ET.parse(tmp_path / "out/Annotations/a b/1.xml").getroot()
    said = re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))
    assert said.startswith(
        "<annotation><folder>JPEGImages</folder><filename>a b/1.jpg</filename>"
        "<size><width>8</width><height>5</height><depth>3</depth></size><segmented>1</segmented>"
        "<object><name>dog</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object><object>"
    )
    for kind, dog, cat in (("SegmentationClass", 2, 1), ("SegmentationObject", 1, 2)):
        with PIL.Image.open(tmp_path / "out" / kind / "a b/1.png") as image:
            assert image.mode == "P" and np.array_equal(np.asarray(image), dog * ring() + cat * block())
            assert image.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
            voc = np.array(image.getpalette()).reshape(-1, 3)[[5, 15, 20, 255]].tolist()
            assert kind == "SegmentationClass" or voc == [[128, 0, 128], [192, 128, 128], [0, 64, 128], [224, 224, 192]]
    assert json.loads((tmp_path / "out/SegmentationClass/classes.json").read_text())["palette"][2] == [0, 128, 0]
    assert (tmp_path / "out/ImageSets/Main/train.txt").read_text() == "a b/1\nü\n"
    assert report.losses == ["2 scores"] and masks(read("voc", tmp_path / "out")) == masks(file)


@given(st.tuples(*[st.integers(0, 50)] * 4))
def test_whole_boxes_survive_vocs_pixels_from_one(numbers: tuple[int, ...]) -> None:
    x0, y0, width, height = numbers
    a, b, c, d = to_voc_box((x0, y0, x0 + width + 1, y0 + height + 1))
    assert (a - 1, b - 1, c, d) == (x0, y0, x0 + width + 1, y0 + height + 1)


def test_overlaps_of_voc_are_reported(tmp_path: Path) -> None:
    whole = np.ones((5, 8), bool)
    things = (Annotation.of_mask("x", ring(), 0.1), Annotation.of_mask("x", whole, 0.9), Annotation.of_mask("x", block(), 0.95))
    report = export(build_coco_file(["x"], [AnnotatedImage("p.jpg", (5, 8), things)]), "voc", tmp_path / "out")
    assert report.boxes_only == 1 and report.mask_iou == {"mean": (1 + 34 / 40) / 2, "min": 34 / 40}
    assert report.losses == ["1 masks, their boxes are kept", "1 masks changed", "3 scores"]
    assert json.loads((tmp_path / "out" / "fidelity.json").read_text())["losses"] == report.losses
    assert report.changes[0] == {"file_name": "p.jpg", "object": 0, "name": "x", "iou": 0.0}


def test_index_pngs_merge_things_of_a_class(tmp_path: Path) -> None:
    things = (Annotation.of_mask("x", ring()), Annotation.of_mask("x", block()))
    report = export(build_coco_file(["x"], [AnnotatedImage("p.jpg", (5, 8), things)]), "png", tmp_path / "out")
    assert (report.found, report.merged, report.lost, report.added) == (1, 1, 0, 0)
    with PIL.Image.open(tmp_path / "out/labels/p.png") as image:
        assert np.array_equal(np.asarray(image), ring() | block())
    PIL.Image.new("RGB", (8, 5)).save(tmp_path / "p.jpg")
    assert read("png", tmp_path / "out", tmp_path).images[0]["file_name"] == "p.jpg"


def test_labelme_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    export(file, "labelme", tmp_path / "out")
    data = json.loads((tmp_path / "out" / "a b" / "1.json").read_text())
    donut, square = data.pop("shapes")
    assert data == {
        "version": "5.5.0", "flags": {}, "imagePath": "1.jpg", "imageData": None, "imageHeight": 5, "imageWidth": 8,
    }  # fmt: skip
    assert square == {
        "label": "cat", "group_id": None, "description": "", "flags": {}, "shape_type": "polygon", "mask": None,
        "points": [[5, 3], [7, 3], [7, 4], [5, 4]], "score": 0.5,
    }  # fmt: skip
    assert donut["shape_type"] == "mask" and donut["points"] == [[1, 1], [3, 3]]
    with PIL.Image.open(io.BytesIO(base64.b64decode(donut["mask"]))) as image:
        assert np.array_equal(np.asarray(image) > 0, ring()[1:4, 1:4])
    assert (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\ncow\n"


def test_labelme_of_others_is_read(tmp_path: Path) -> None:
    shape = {"label": "x", "group_id": 4, "shape_type": "polygon", "flags": {}}
    shapes: list[dict[str, Any]] = [
        shape | {"points": [[0, 0], [1.2, 0], [1, 1], [0, 1]]},
        shape | {"points": [[6, 3], [5, 3], [5, 4]]},
        {"label": "y", "points": [[6, 4], [2, 1]], "shape_type": "rectangle"},
    ]
    about = {"imagePath": "..\\photos\\p.jpg", "imageHeight": 5, "imageWidth": 8, "shapes": shapes}
    (tmp_path / "p.json").write_text(json.dumps(about))
    (image,) = list_images(read("labelme", tmp_path))
    joined, box = image.things
    assert image.file_name == "p.jpg" and box.box == (2, 1, 6, 4) and box.rle is None
    assert joined.rle and np.argwhere(decode_rle(joined.rle)).tolist() == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
        [3, 5],
        [3, 6],
        [4, 5],
    ]
    shapes[2]["shape_type"] = "circle"
    (tmp_path / "p.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="circle"):
        read("labelme", tmp_path)


def test_label_studio_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    file.info["model_version"] = "annofree zip"
    things = list_images(file)[0].things
    boxed = build_coco_file(list_names(file), [AnnotatedImage("p q.jpg", (5, 8), (*things, Annotation("cow", (2, 1, 4, 2))))])
    boxed.info = file.info
    assert export(boxed, "label-studio", tmp_path / "out").losses == []
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=images/p%20q.jpg"
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "annofree zip" and prediction["score"] == 0.625
    donut, square, box = prediction["result"]
    assert decode_brush(donut["value"].pop("rle"), (5, 8)).tolist() == ring().tolist()
    assert donut == {
        "id": "thing-1", "type": "brushlabels", "from_name": "label", "to_name": "image", "original_width": 8,
        "original_height": 5, "image_rotation": 0, "value": {"format": "rle", "brushlabels": ["dog"]}, "score": 0.75,
    }  # fmt: skip
    assert box["value"] == {"x": 25, "y": 20, "width": 25, "height": 20, "rotation": 0, "rectanglelabels": ["cow"]}
    config = ET.parse(tmp_path / "out" / "label_config.xml").getroot()
    assert [(tag.tag, tag.get("name"), tag.get("toName")) for tag in config] == [
        ("Image", "image", None), ("BrushLabels", "label", "image"), ("RectangleLabels", "box", "image"),
    ]  # fmt: skip
    assert config[0].get("value") == "$image" and [label.get("value") for label in config[1]] == ["cat", "dog", "cow"]
    assert {r["from_name"] for r in prediction["result"]} <= {tag.get("name") for tag in config}
    assert square["id"] != donut["id"]


def test_label_studio_annotations_go_before_predictions(tmp_path: Path) -> None:
    common = {"original_width": 8, "original_height": 5, "image_rotation": 0}
    polygon = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["x"]}
    result: list[dict[str, Any]] = [
        {"type": "polygonlabels", "value": polygon, **common},
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    tasks = [{"data": {"image": "http://h/data/upload/1/p%20q.jpg"}, "annotations": [{"result": result}], "predictions": []}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (image,) = list_images(read("label-studio", tmp_path / "export.json"))
    assert image.file_name == "p q.jpg" and image.things[0].box == (0, 0, 4, 5)
    result[0]["type"] = "ellipselabels"
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="ellipselabels"):
        read("label-studio", tmp_path / "export.json")


def slow_unpack(data: list[int]) -> list[int]:
    """The words of rle-pack, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)

    def take(length: int) -> int:
        nonlocal bits
        head, bits = bits[:length], bits[length:]
        return int(head, 2)

    total, width = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    words: list[int] = []
    while len(words) < total:
        run, count = take(1), take(sizes[take(2)]) + 1
        words += [take(width)] * count if run else [take(width) for _ in range(count)]
    return words


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 90))))
def test_brushes_unpack_to_the_mask(mask: Mask) -> None:
    packed = encode_brush(mask)
    assert slow_unpack(packed) == np.repeat(mask.ravel() * 255, 4).tolist()
    assert np.array_equal(decode_brush(packed, (mask.shape[0], mask.shape[1])), mask)


def test_brushes_of_large_and_of_literal_masks() -> None:
    nothing = np.zeros((2527, 3332), bool)  # the first bytes that Label Studio itself writes for an image of this size
    assert encode_brush(nothing)[:17] == [2, 1, 233, 240, 57, 27, 255, 255, 255, 0, 255, 255, 224, 31, 255, 252, 3]
    large = nothing.copy()
    large[5:2000, 7:3000] = True
    large[50:60, 70:90] = False
    assert np.array_equal(decode_brush(encode_brush(large), (2527, 3332)), large)
    # two pixels as eight literal words: 0 0 0 0 and 1 2 3 4 (the last channel counts)
    bits = f"{8:032b}{7:05b}" + "0010001101111111" + "0" + "00" + "111" + "".join(f"{w:08b}" for w in (0, 0, 9, 0, 1, 2, 3, 4))
    data = [int(bits[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(bits), 8)]
    assert decode_brush(data, (1, 2)).tolist() == [[False, True]]
    with pytest.raises(InputError, match="end too soon"):
        decode_brush(data[:-4], (1, 2))
    with pytest.raises(InputError, match="pixels"):
        decode_brush(data, (3, 2))


def test_cvat_is_laid_out_so(file: CocoFile, tmp_path: Path) -> None:
    things = (*list_images(file)[0].things, Annotation("cow", (2, 1, 4.5, 2)))
    export(build_coco_file(list_names(file), [AnnotatedImage("a b/1.jpg", (5, 8), things)]), "cvat", tmp_path / "out")
    text = (tmp_path / "out" / "annotations.xml").read_text()
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>')
    assert '<image id="0" name="a b/1.jpg" width="8" height="5">' in text
    donut = '<mask label="dog" source="auto" occluded="0" rle="0, 4, 1, 4" left="1" top="1" width="3" height="3" z_order="0" />'
    assert donut in text
    box = '<box label="cow" source="auto" occluded="0" xtl="2.00" ytl="1.00" xbr="4.50" ybr="2.00" z_order="2" />'
    assert box in text
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels[1] == {"name": "dog", "color": to_hex(make_palette(2)[1]), "attributes": []}
    assert [label.findtext("name") for label in ET.fromstring(text).iterfind("meta/task/labels/label")] == ["cat", "dog", "cow"]


def test_cvats_documented_example_is_read(tmp_path: Path) -> None:
    rle = "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
    shapes = [
        f'<mask label="car" rle="{rle}" left="7" top="8" width="13" height="15" z_order="1" />',
        '<polygon label="bus" points="0.00,0.00;4.00,0.00;4.00,2.00;0.00,2.00" z_order="0" />',
    ]
    head = "<annotations><version>1.1</version><image id='0' name='p.jpg' width='30' height='25'>"
    (tmp_path / "annotations.xml").write_text(f"{head}{''.join(shapes)}</image></annotations>")
    bus, car = list_images(read("cvat", tmp_path))[0].things
    assert (bus.name, bus.box, car.name, car.box) == ("bus", (0, 0, 4, 2), "car", (7, 8, 20, 23))
    assert car.rle and decode_rle(car.rle)[8].nonzero()[0].tolist() == [10, 11, 12, 13, 14]
    (tmp_path / "annotations.xml").write_text(f"{head}<points label='x' points='1,1'/></image></annotations>")
    with pytest.raises(InputError, match="<points>"):
        read("cvat", tmp_path)


def test_links_and_pictures_that_are_missing(file: CocoFile, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 5)).save(tmp_path / "ü.png")
    with pytest.raises(InputError, match=re.escape("1 are not there, such as a b/1.jpg")):
        export(file, "cvat", tmp_path / "out", images="link", image_root=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ü.png"]  # nothing is left behind
    file.images = file.images[1:]
    file.annotations = []
    export(file, "cvat", tmp_path / "out", images="link", image_root=tmp_path)
    assert (tmp_path / "out" / "images" / "ü.png").resolve() == (tmp_path / "ü.png").resolve()


def test_what_cannot_be_is_said_in_a_line(file: CocoFile, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="has something in it"):
        export(file, "coco", tmp_path / "full")
    with pytest.raises(InputError, match="did you mean 'yolo-seg'"):
        find_format("yolo_seg")
    with pytest.raises(InputError, match="--image-root"):
        export(file, "coco", tmp_path / "out", images="copy")
    with pytest.raises(InputError, match="got nothing there"):
        read("voc", tmp_path / "no")
    file.categories[0]["name"] = "bell \x07"
    with pytest.raises(InputError, match="XML"):
        export(file, "cvat", tmp_path / "out")
    file.categories[0]["name"] = "dog"
    with pytest.raises(InputError, match="'dog' more than once"):
        export(file, "yolo-seg", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"[1]", b"<annotations><image/></annotations>", b"[" * 1100])
def test_damaged_files_are_refused_in_a_line(name: str, content: bytes, tmp_path: Path) -> None:
    files = {"voc": "Annotations/a.xml", "cvat": "annotations.xml", "label-studio": "tasks.json", "png": "labels/classes.json"}
    files |= {"yolo-seg": "data.yaml", "yolo-det": "data.yaml"}
    place = tmp_path / files.get(name, "annotations.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read(name, tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_disk_that_fails_leaves_nothing(file: CocoFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full)
    with pytest.raises(InputError, match="No space left on device; nothing was written"):
        export(file, "voc", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_called_like_the_report_keeps_its_labels(tmp_path: Path) -> None:
    file = build_coco_file(["x"], [AnnotatedImage("fidelity.jpg", (5, 8), (Annotation.of_mask("x", ring()),))])
    report = export(file, "labelme", tmp_path / "out")
    assert report.losses == [] and report.pictures_renamed == {"fidelity.jpg": "fidelity-2.jpg"}
    assert masks(read("labelme", tmp_path / "out")) == masks(file)
