"""A small valid example of each format of annotations: two classes, a few objects, images of 20 x 12 px."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image

from annofree.ops.rle import encode_rle

__all__ = ["CVAT", "VOC", "YAML", "YOLO", "coco", "labelme", "picture", "tasks"]

WIDTH, HEIGHT = 20, 12
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
    counts = encode_rle(np.pad(np.ones((6, 1), bool), ((0, 6), (2, 17))))["counts"]
    objects[3]["segmentation"]["counts"] = counts.decode() if isinstance(counts, bytes) else counts
    images = [{"id": k, "file_name": f"{'ab'[k - 1]}.png", "height": HEIGHT, "width": WIDTH} for k in (1, 2)]
    return {
        "info": {},
        "images": images,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": objects,
    }


def labelme() -> dict[str, Any]:
    box: dict[str, Any] = {"label": "dog", "points": [[1, 1], [8, 6]], "group_id": None, "shape_type": "rectangle", "flags": {}}
    polygon = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": None}
    return {"version": "5.4", "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [box, polygon]}


def tasks() -> list[dict[str, Any]]:
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

YAML: dict[str, Any] = {"path": ".", "train": "images", "val": "images", "names": {0: "dog", 1: "cat"}}
