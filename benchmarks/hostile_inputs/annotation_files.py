"""Hostile annotations, a format at a time: read by ``convert``, and by ``evaluate`` where it takes them."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.mutations import DEEP, dump, spoil_bytes, spoil_json, spoil_lines, spoil_xml
from benchmarks.hostile_inputs.samples import CVAT, VOC, YAML, YOLO, coco, labelme, picture, tasks
from benchmarks.hostile_inputs.sandbox import Case, Counts

__all__ = ["list_cases"]

TARGETS = ("coco", "yolo-seg", "voc", "labelme", "label-studio", "cvat", "png", "coco-polygons", "yolo-det")


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
    for what, value in spoil_json(labelme(), 2, ("imagePath",)):
        rows, grouped = _rows(value, "shapes"), "group_id" in what
        yield _case("labelme", what, partial(_write_labelme, data=dump(value)), (rows - grouped, rows), rng)


def _labelme_bytes(rng: random.Random) -> Iterator[Case]:
    for what, odd in spoil_bytes(dump(labelme()), 3):
        yield _case("labelme", what, partial(_write_labelme, data=odd), (0, 4), rng)


def _write_labelme(folder: Path, data: bytes) -> str:
    _write(folder, "labels/a.json", data)
    return "labels"


def _studio_cases(rng: random.Random) -> Iterator[Case]:
    for what, value in spoil_json(tasks(), 4, ("image",)):
        least, most = (2, 2) if "value" not in what and "result" not in what and " put " in what else _count_tasks(value)
        odd = any(word in what for word in ("annotations", "double", "drop", "wrap"))
        yield _case(
            "label-studio", what, partial(_write, name="tasks.json", data=dump(value)), (0 if odd else least, most), rng
        )


def _studio_bytes(rng: random.Random) -> Iterator[Case]:
    for what, odd in spoil_bytes(dump(tasks()), 5):
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


def _yaml_cases(rng: random.Random) -> Iterator[Case]:
    for what, value in spoil_json(YAML, 10, ("train", "path", "val")):
        if isinstance(value.get("names"), dict):
            value = value | {"names": {str(key): one for key, one in value["names"].items()}}
        yield _case("yolo-yaml", what, partial(_write_yolo, kind="yolo-det", data=None, about=dump(value)), (0, 4), rng)


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
    (folder / "pictures" / "link-out.png").unlink()  # YOLO has all images of a folder
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
    dealt = [case for source in sources for case in islice(source, share)]
    more = (case for source in sources for case in source)  # where some had fewer than their share
    return [*dealt, *islice(more, max(0, count - len(dealt)))][:count]
