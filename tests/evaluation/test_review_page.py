"""The page of a review: the images of review.json in its order, large, with their reasons."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
from tests.support.pages import HOSTILE, Page, assert_strict

from annofree.evaluation.review.page import write_review_page
from annofree.evaluation.review.rank import rank_images, write_review
from annofree.formats.coco import CocoFile
from annofree.structures import Image

IMAGE = Image(np.full((20, 30, 3), 90, np.uint8))


def make_run(folder: Path, files: list[str], name: str = "dog") -> Path:
    """Image k has k instances of scores 0.9, 0.8 ..., and an overlay."""
    (folder / "overlays").mkdir(parents=True)
    file = CocoFile.with_categories({1: name})
    for k, file_name in enumerate(files):
        PIL.Image.new("RGB", (60, 40)).save(folder / "overlays" / f"{k}.jpg")
        id_ = file.add_image(file_name, (20, 30), overlay=f"overlays/{k}.jpg")
        square = {"category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0, "segmentation": []}
        file.add_annotations([square | {"image_id": id_, "score": 0.9 - 0.1 * i} for i in range(k)])
    (folder / "annotations.json").write_text(json.dumps(file.__dict__))
    (folder / "run.json").write_text("{}")
    return folder


def written(run: Path, out: Path, worst: int, opened: bool = True, unseen: dict[str, str] | None = None) -> Page:
    review = rank_images(run, worst, by="score")
    review.unseen.update(unseen or {})
    rows = write_review(review, run, out)
    return Page.read(write_review_page(review, run, out, rows, (lambda name: IMAGE) if opened else None))


def test_images_stand_in_the_order_of_the_json_with_reasons_and_links(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", ["none.jpg", "one.jpg", "two.jpg", "three.jpg"]), tmp_path / "out"
    page = written(run, out, 3, unseen={"three.jpg": "it is gone"})
    lines = json.loads((out / "review.json").read_text())["worst"]
    assert [a["data-item"] for a in page.having("data-item")] == ["1", "2", "3"] == [str(line["rank"]) for line in lines]
    places = [page.text.index(f"{line['rank']}. {line['file_name']}") for line in lines]
    assert places == sorted(places) and "The riskiest 3 of 4 images" in page.text
    for line in lines:
        assert f"Risk {line['risk']:.2f}" in page.text and all(reason in page.text for reason in line["reasons"])
    links = [str(a["href"]) for a in page.of("a") if "#" not in str(a["href"])]
    assert len(links) == 9 and all((out / link).is_file() for link in links)  # the large view, the image, the overlay
    assert [a["data-score"] for a in page.of("path")] == ["0.7", "0.8", "0.9", "0.8", "0.9"]
    assert "could not be looked at again: it is gone" in page.text
    assert_strict(page)


def test_an_earlier_page_leaves_nothing(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", ["a.jpg", "b.jpg", "c.jpg"]), tmp_path / "out"
    first = written(run, out, 3)
    assert len(list((out / "images").iterdir())) == 3
    (out / "images" / "mine.jpg").touch()
    written(run, out, 1)
    assert sorted(path.name for path in (out / "images").iterdir()) == ["0001.jpg", "mine.jpg"]
    assert written(run, out, 3).tags == first.tags
    drawn = written(run, out, 3, opened=False)
    assert drawn.text.count("The image was not found") == 3


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = HOSTILE.replace("\ud800", "").replace("\0", "")  # which no file can have
    run = make_run(tmp_path / "run", [name, "b" + name], "</style><img src=x onerror=y>")
    page = written(run, tmp_path / "out", 2, opened=False)
    assert_strict(page)
    assert '<script>alert("x")</script>' in page.text and "</style><img" in page.text
    assert len(page.of("script")) == 1 and not [a for a in page.of("img") if "onerror" in a]
