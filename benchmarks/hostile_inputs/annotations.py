"""Hostile annotations, a format at a time: read by ``convert``, and by ``evaluate`` where it takes them."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from benchmarks.hostile_inputs.mutations import DEEP, dump, spoil_bytes, spoil_json, spoil_lines, spoil_xml
from benchmarks.hostile_inputs.sandbox import Case, Counts

__all__ = ["list_cases"]

WIDTH, HEIGHT = 20, 12
TARGETS = ("coco", "yolo-seg", "voc", "labelme", "label-studio", "cvat", "png", "coco-polygons", "yolo-det")
COMMON = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image", "from_name": "x"}


def picture(mode: str = "RGB") -> bytes:
    """A small PNG."""
    file = BytesIO()
    PIL.Image.new(mode, (WIDTH, HEIGHT), 1 if mode == "L" else (9, 90, 200)).save(file, "PNG")
    return file.getvalue()


def coco() -> dict[str, Any]:
    """Two images, two classes, four objects: two masks, a polygon, a box."""
    rle = {"size": [HEIGHT, WIDTH], "counts": [24, 6, 210]}
    objects: list[dict[str, Any]] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 0, 1, 6], "area": 6, "iscrowd": 0, "segmentation": rle},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [1, 1, 6, 4], "segmentation": [[1, 1, 7, 1, 7, 5, 1, 5]]},
        {"id": 3, "image_id": 2, "category_id": 2, "bbox": [3, 3, 5, 5], "iscrowd": 0, "score": 0.5},
        {
            "id": 4,
            "image_id": 2,
            "category_id": 1,
            "bbox": [2, 0, 1, 6],
            "segmentation": {**rle, "counts": "h06b6"},
            "iscrowd": 0,
        },
    ]
    from annofree.ops.rle import encode_rle

    counts = encode_rle(np.pad(np.ones((6, 1), bool), ((0, 6), (2, 17))))["counts"]
    objects[3]["segmentation"]["counts"] = counts.decode() if isinstance(counts, bytes) else counts
    images = [{"id": k, "file_name": f"{'ab'[k - 1]}.png", "height": HEIGHT, "width": WIDTH} for k in (1, 2)]
    return {
        "info": {},
        "images": images,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": objects,
    }


def _labelme() -> dict[str, Any]:
    box = {"label": "dog", "points": [[1, 1], [8, 6]], "group_id": None, "shape_type": "rectangle", "flags": {}}
    polygon = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": None}
    return {"version": "5.4", "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [box, polygon]}


def _tasks() -> list[dict[str, Any]]:
    place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
    box = {"type": "rectanglelabels", "value": {**place, "rectanglelabels": ["dog"]}, "id": "r", **COMMON}
    shape = {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["cat"]}
    polygon = {"type": "polygonlabels", "value": shape, "id": "p", **COMMON}
    answer = {"id": 1, "was_cancelled": False, "ground_truth": False, "result": [box, polygon]}
    return [{"id": 1, "data": {"image": "/data/upload/1/a.png"}, "annotations": [answer], "predictions": []}]


CVAT = (
    f"<annotations><version>1.1</version><meta><task><labels><label><name>dog</name></label><label><name>cat</name></label>"
    f'</labels></task></meta><image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">'
    '<box label="dog" xtl="1" ytl="1" xbr="8" ybr="6" z_order="0" /><polygon label="cat" points="1,1;9,1;9,9" />'
    '<mask label="dog" rle="2, 4" left="1" top="1" width="3" height="2" z_order="1" /></image></annotations>'
)
VOC = (
    f"<annotation><folder>images</folder><filename>a.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
    "<depth>3</depth></size><object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax>"
    "<ymax>6</ymax></bndbox></object><object><name>cat</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object></annotation>"
)
YOLO = {
    "yolo-det": "0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.1 0.1 0.9\n",
    "yolo-seg": "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4\n",
    "yolo-pose": "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.6 0.6 1\n",
}


def _count_report(place: Path) -> Counts:
    """What a conversion says of what it read: objects, objects passed over, and whether more was."""
    report = json.loads((place / "out" / "fidelity.json").read_text())
    passed = report.get("passed_over", [])
    told = sum(one["count"] for one in passed if one["what"] == "objects")
    return report["objects"] + report["crowds_left_out"], told, any(one["what"] != "objects" for one in passed)


def _convert(place: Path, write: Callable[[Path], str], kind: str, to: str, more: Sequence[str]) -> list[str]:
    source = write(place / "in")
    return ["convert", source, "--from", kind, "--to", to, "--out", str(place / "out"), *more]


def _case(kind: str, name: str, write: Callable[[Path], str], contained: tuple[int, int] | None, rng: random.Random) -> Case:
    """One conversion to a random format, images copied, and what is odd skipped, now and then."""
    more = ["--skip-unsupported"] * (rng.random() < 0.7)
    how = rng.choice(("none", "root", "copy", "link"))
    more += [] if how == "none" else ["--image-root", "pictures"]
    more += ["--images", how] if how in ("copy", "link") else []
    reader = "yolo-seg" if kind.startswith("yolo") else kind
    build = partial(_convert, write=write, kind=reader, to=rng.choice(TARGETS), more=more)
    return Case(f"convert {kind}", name, build, contained=contained, count=_count_report)


def _images(folder: Path) -> None:
    """The images, and a link that leads out."""
    (folder / "pictures").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / "pictures" / name).write_bytes(picture())
    (folder / "pictures" / "link-out.png").symlink_to(folder.parent / "beside" / "secret.png")


def _write(folder: Path, name: str, data: bytes) -> str:
    _images(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.replace(b"{place}", str(folder.parent).encode()))
    return name


def _rows(value: Any, key: str) -> int:
    rows = value.get(key) if isinstance(value, dict) else None
    return len(rows) if isinstance(rows, list) else 0


def _count_tasks(value: Any) -> tuple[int, int]:
    """Regions of all tasks, at least those of a label; 0 to all where labels and groups are odd."""
    return 0, len(json.dumps(value).split('"value"')) - 1


def _coco_cases(rng: random.Random) -> Iterator[Case]:
    whole = coco()
    for what, value in spoil_json(whole, 0, ("file_name",)):
        rows = _rows(value, "annotations")
        yield _case("coco", what, partial(_write, name="a.json", data=dump(value)), (rows, rows), rng)


def _coco_bytes(rng: random.Random) -> Iterator[Case]:
    data = dump(coco())
    twice = data.replace(b'"categories"', b'"annotations": [], "categories"')
    again = dump(coco() | {"zz": 1}).replace(b'"zz": 1', b'"annotations": ' + dump(coco()["annotations"]))
    for what, odd in (("a list twice, empty first", twice), ("a list twice", again)):
        count = 4 if odd is twice else 8
        yield _case("coco", what, partial(_write, name="a.json", data=odd), (count, count), rng)
    for what, odd in spoil_bytes(data, 1):
        yield _case("coco", what, partial(_write, name="a.json", data=odd), (0, 8), rng)


def _labelme_cases(rng: random.Random) -> Iterator[Case]:
    for what, value in spoil_json(_labelme(), 2, ("imagePath",)):
        rows, grouped = _rows(value, "shapes"), "group_id" in what
        yield _case("labelme", what, partial(_write_labelme, data=dump(value)), (rows - grouped, rows), rng)


def _labelme_bytes(rng: random.Random) -> Iterator[Case]:
    for what, odd in spoil_bytes(dump(_labelme()), 3):
        yield _case("labelme", what, partial(_write_labelme, data=odd), (0, 4), rng)


def _write_labelme(folder: Path, data: bytes) -> str:
    _write(folder, "labels/a.json", data)
    return "labels"


def _studio_cases(rng: random.Random) -> Iterator[Case]:
    for what, value in spoil_json(_tasks(), 4, ("image",)):
        least, most = (2, 2) if "value" not in what and "result" not in what and " put " in what else _count_tasks(value)
        odd = any(word in what for word in ("annotations", "double", "drop", "wrap"))
        yield _case(
            "label-studio", what, partial(_write, name="tasks.json", data=dump(value)), (0 if odd else least, most), rng
        )


def _studio_bytes(rng: random.Random) -> Iterator[Case]:
    for what, odd in spoil_bytes(dump(_tasks()), 5):
        yield _case("label-studio", what, partial(_write, name="tasks.json", data=odd), (0, 4), rng)


def _count_xml(text: str, tags: Sequence[str], holder: str) -> tuple[int, int]:
    try:
        tree = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return 0, 6
    count = sum(one.tag in tags for parent in tree.iter(holder) for one in parent)
    return count, count


def _cvat_cases(rng: random.Random) -> Iterator[Case]:
    for what, text in spoil_xml(CVAT, 6):
        count = _count_xml(text, ("box", "polygon", "mask", "boxx", "polygonx", "maskx"), "image")
        yield _case("cvat", what, partial(_write, name="annotations.xml", data=text.encode("utf-8", "replace")), count, rng)


def _voc_cases(rng: random.Random) -> Iterator[Case]:
    for what, text in spoil_xml(VOC, 7):
        count = _count_xml(text, ("object",), "annotation")
        yield _case("voc", what, partial(_write_voc, data=text.encode("utf-8", "replace")), count, rng)


def _xml_bytes(rng: random.Random) -> Iterator[Case]:
    for (what, odd), (_, other) in zip(spoil_bytes(CVAT.encode(), 8), spoil_bytes(VOC.encode(), 9), strict=False):
        yield _case("cvat", what, partial(_write, name="annotations.xml", data=odd), (0, 6), rng)
        yield _case("voc", what, partial(_write_voc, data=other), (0, 4), rng)


def _write_voc(folder: Path, data: bytes) -> str:
    _write(folder, "voc/Annotations/a.xml", data)
    return "voc"


def _yolo_cases(rng: random.Random) -> Iterator[Case]:
    spoilt = [(kind, spoil_lines(text, k)) for k, (kind, text) in enumerate(YOLO.items())]
    while True:
        for kind, texts in spoilt:
            what, text = next(texts)
            count = sum(bool(line.strip()) for line in text.splitlines())
            yield _case(kind, what, partial(_write_yolo, kind=kind, data=text.encode("utf-8", "replace")), (count, count), rng)


YAML: dict[str, Any] = {"path": ".", "train": "images", "val": "images", "names": {0: "dog", 1: "cat"}}


def _yaml_cases(rng: random.Random) -> Iterator[Case]:
    for what, value in spoil_json(YAML, 10, ("train", "path", "val")):
        if isinstance(value.get("names"), dict):
            value = value | {"names": {str(key): one for key, one in value["names"].items()}}
        yield _case("yolo-yaml", what, partial(_write_yolo, kind="yolo-det", data=None, about=dump(value)), (0, 2), rng)


def _yaml_bytes(rng: random.Random) -> Iterator[Case]:
    bomb = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9) if k else 'x'}]\n" for k in range(9)) + "names: *a8\n"
    odd = {
        "aliases": bomb.encode(),
        "code": b"names: !!python/object/apply:os.system ['touch ../beside/new']\n",
        "itself": b"names: &a [*a]\ntrain: images\n",
        "deep": b"names: " + b"[" * DEEP,
        "keys": b"? [a, b]\n: 1\nnames: [dog]\ntrain: images\n",
        "date": b"names: {2001-01-01: dog}\ntrain: images\n",
        "twice": b"names: [dog]\nnames: [cat, dog]\ntrain: images\n",
        "two documents": b"names: [dog]\n---\nnames: [cat]\n",
        "tab": b"names:\t[dog, cat]\n\ttrain: images\n",
    }
    whole = b"path: .\ntrain: images\nnames: [dog, cat]\n"
    for what, data in (*odd.items(), *islice(spoil_bytes(whole, 11), 60)):
        yield _case("yolo-yaml", what, partial(_write_yolo, kind="yolo-det", data=None, about=data), (0, 2), rng)


def _write_yolo(folder: Path, kind: str, data: bytes | None, about: bytes | None = None) -> str:
    shape = b"kpt_shape: [2, 3]\n" if kind == "yolo-pose" else b""
    plain = b"path: .\ntrain: images\nval: images\nnames: {0: dog, 1: cat}\n" + shape
    _write(folder, "yolo/data.yaml", plain if about is None else about)
    for name in ("images", "labels"):
        (folder / "yolo" / name).mkdir()
    (folder / "yolo/images/a.png").write_bytes(picture())
    (folder / "yolo/labels/a.txt").write_bytes(YOLO[kind].encode() if data is None else data)
    return "yolo"


def _map_cases(rng: random.Random) -> Iterator[Case]:
    about = {"names": ["background", "dog", "cat"], "background": 0}
    pngs = {"map": picture("L"), "color": picture()}
    for what, value in spoil_json(about, 12):
        yield _case("png", what, partial(_write_maps, about=dump(value), png=pngs["map"]), (0, 1), rng)
        for kind, png in pngs.items():
            where, spoilt = next(islice(spoil_bytes(png, rng.randrange(10**6)), 21 + rng.randrange(2), None))
            yield _case("png", f"{kind}: {where}", partial(_write_maps, about=dump(about), png=spoilt), (0, 1), rng)


def _write_maps(folder: Path, about: bytes, png: bytes) -> str:
    _write(folder, "maps/classes.json", about)
    (folder / "maps/a.png").write_bytes(png)
    return "maps"


FAMILIES: tuple[Callable[[random.Random], Iterator[Case]], ...] = (
    *(_coco_cases, _coco_bytes, _labelme_cases, _labelme_bytes, _studio_cases, _studio_bytes),
    *(_cvat_cases, _voc_cases, _xml_bytes, _yolo_cases, _yaml_cases, _yaml_bytes, _map_cases),
)


def list_cases(count: int, seed: int = 0) -> list[Case]:
    """So many conversions, dealt out to the formats."""
    rng = random.Random(seed)
    sources = [family(rng) for family in FAMILIES]
    share = -(-count // len(sources))
    return [case for source in sources for case in islice(source, share)][:count]
