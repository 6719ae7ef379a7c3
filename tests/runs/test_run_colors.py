"""A class has one color in all that a run leaves behind, and in all that it is exported to."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from annofree.formats.coco import CocoFile
from annofree.formats.registry import export
from annofree.ops.palette import Color, make_palette, to_hex
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.runs.store.results import average_shares
from annofree.runs.write_report import write_report
from annofree.structures import Detections, Image, LabelMap

NAMES = ("cat", "dog", "cow", "owl")
COLORS = dict(zip(NAMES, make_palette(4), strict=True))
SIZE = (600, 800)
IMAGE = Image(np.full((*SIZE, 3), 100, np.uint8))


def found() -> Detections:
    """A dog on the left and an owl on the right; cats and cows are asked for, and are not there."""
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 100:500, 50:350] = masks[1, 100:500, 450:750] = True
    return Detections.from_masks(masks, [1, 3], [0.9, 0.8], NAMES)


def labeled(background: str | None) -> LabelMap:
    names = NAMES if background is None else (background, *NAMES)
    labels = np.zeros(SIZE, np.int32)
    for mask, name in zip(found().masks, found().labels, strict=True):
        labels[mask] = names.index(name)
    return LabelMap(labels, names, None if background is None else 0)


def run(out: Path, tasks: list[str], background: str | None = "background") -> Path:
    folder = RunFolder.create(out, NAMES, tasks=tasks)
    detections = found() if "instance" in tasks else None
    ids = np.zeros(SIZE, np.int32)
    ids[found().masks[0]] = 1
    segments = (ids, [{"id": 1, "category_id": 2, "bbox": [50, 100, 300, 400], "area": 120000, "iscrowd": 0}])
    row = folder.record(
        ResultNames(["a.png"]).find_names("a.png"),
        SIZE,
        IMAGE,
        detections=detections,
        labels=labeled(background) if "semantic" in tasks else None,
        segments=segments if "panoptic" in tasks else None,
    )
    folder.finish(lambda: [row], shares=average_shares(lambda: [row]))
    folder.write_summary({"method": "zip"})
    return out


def pixels(path: Path) -> npt.NDArray[np.int64]:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def dots(page: str) -> dict[str, set[str]]:
    """The colors of the dots before each name."""
    rules = dict(re.findall(r'\[data-class="(\d+)"\]\{--color:(#[0-9a-f]{6})\}', page))
    said: dict[str, set[str]] = {}
    for k, name in re.findall(r'data-class="(\d+)"><i class="dot"></i><bdi>([^<]*)</bdi>', page):
        said.setdefault(name, set()).add(rules[k])
    return said


def near(one: npt.NDArray[np.int64], color: Color) -> bool:
    """As near as JPEG keeps a line."""
    return bool(np.abs(one.reshape(-1, 3) - color).max(1).min() < 20)


@pytest.mark.parametrize("background", ["background", None])
def test_overlays_label_maps_panoptic_maps_and_the_report_agree(tmp_path: Path, background: str | None) -> None:
    out = run(tmp_path / "run", ["instance", "semantic", "panoptic"], background)
    overlay, drawn = pixels(out / "overlays/a.jpg"), pixels(out / "overlays-semantic/a.jpg")
    file = pixels(out / "labels/a.png")
    for name, (left, right) in {"dog": (50, 350), "owl": (450, 750)}.items():
        middle = (left + right) // 2
        assert tuple(file[300, middle].tolist()) == COLORS[name]
        assert near(overlay[200:400, right - 3 : right], COLORS[name])
        assert near(drawn[200:400, right - 3 : right], COLORS[name])
        assert near(drawn[600:], COLORS[name])  # the legend
    said = json.loads((out / "panoptic.json").read_text())["categories"]
    assert {row["name"]: tuple(row["color"]) for row in said} == COLORS
    shown = dots(write_report(out, out / "report").read_text(encoding="utf-8"))
    assert {name: shown[name] for name in NAMES} == {name: {to_hex(color)} for name, color in COLORS.items()}
    sheets = [pixels(path) for path in sorted((out / "report/sheets").iterdir())]
    assert [near(sheet[20:36, 10:25], COLORS[name]) for sheet, name in zip(sheets, ("dog", "owl"), strict=True)] == [True] * 2


def test_the_report_of_label_maps_alone_has_the_colors_of_the_files(tmp_path: Path) -> None:
    out = run(tmp_path / "run", ["semantic"])
    shown = dots(write_report(out, out / "report").read_text(encoding="utf-8"))
    assert shown == {"background": {"#808080"}, "dog": {to_hex(COLORS["dog"])}, "owl": {to_hex(COLORS["owl"])}}


def test_exports_have_the_colors_of_the_run(tmp_path: Path) -> None:
    file = CocoFile.read(run(tmp_path / "run", ["instance"]) / "annotations.json")
    for name in ("cvat", "label-studio", "png"):
        export(file, name, tmp_path / name)
    told = {name: to_hex(color) for name, color in COLORS.items()}
    labels = ET.parse(tmp_path / "cvat/annotations.xml").getroot().iterfind(".//labels/label")
    assert {label.findtext("name"): label.findtext("color") for label in labels} == told
    assert {row["name"]: row["color"] for row in json.loads((tmp_path / "cvat/labels.json").read_text())} == told
    config = ET.parse(tmp_path / "label-studio/label_config.xml").getroot()
    assert {tag.get("value"): tag.get("background") for tag in config.iter("Label")} == told
    assert tuple(pixels(tmp_path / "png/labels/a.png")[300, 200].tolist()) == COLORS["dog"]
