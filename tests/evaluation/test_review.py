"""Ranking the images of a run, and the folder that is left for people."""

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from annofree.errors import ImageError, InputError
from annofree.evaluation.review.rank import list_reasons, rank_images, read_answers, read_instances_by_name, write_review
from annofree.evaluation.review.risk import Part
from annofree.formats.coco import CocoFile

NAMES = {1: "dog", 2: "cat"}


def row(category: int, score: float, x: int = 0) -> dict[str, Any]:
    box = [x, 0, x + 4, 0, x + 4, 4, x, 4]
    return {"category_id": category, "segmentation": [box], "bbox": [x, 0, 4, 4], "area": 16, "iscrowd": 0, "score": score}


ROWS = {
    "sure.jpg": [row(1, 0.9)],
    "rivals.jpg": [row(1, 0.8), row(2, 0.8)],
    "none.jpg": [],
    "weak.jpg": [row(1, 0.3), row(1, 0.2, 10)],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four images with overlays, one without any instance."""
    folder = tmp_path / "run"
    (folder / "overlays").mkdir(parents=True)
    file = CocoFile.with_categories(NAMES)
    for k, (name, rows) in enumerate(ROWS.items()):
        PIL.Image.new("RGB", (20, 12), (k, k, k)).save(folder / "overlays" / name)
        id_ = file.add_image(name, (12, 20), overlay=f"overlays/{name}")
        file.add_annotations([{"image_id": id_, **r} for r in rows])
    file.write(folder / "annotations.json")
    (folder / "run.json").write_text('{"settings": {}}')
    return folder


def names(review: Any) -> list[str]:
    return [ranked.answer.image["file_name"] for ranked in review.worst]


def test_pictures_come_with_their_things(run: Path) -> None:
    answers = {a.image["file_name"]: a for a in read_answers(run / "annotations.json")}
    assert {name: len(a.things) for name, a in answers.items()} == {name: len(rows) for name, rows in ROWS.items()}
    assert [t.name for t in answers["rivals.jpg"].things] == ["dog", "cat"] and list(answers)[-1] == "none.jpg"
    assert len(read_instances_by_name(run / "annotations.json", min_score=0.25)["weak.jpg"]) == 1


def test_annotations_that_are_apart_are_refused(run: Path) -> None:
    file = CocoFile.read(run / "annotations.json")
    file.annotations.append(file.annotations[0])
    file.write(run / "annotations.json")
    with pytest.raises(InputError, match="image 1 are apart"):
        list(read_answers(run / "annotations.json"))
    file.annotations[-1] = {**file.annotations[0], "image_id": 9}
    file.write(run / "annotations.json")
    with pytest.raises(InputError, match="image 9"):
        list(read_answers(run / "annotations.json"))


def test_every_risk_ranks(run: Path) -> None:
    assert names(rank_images(run, 4, by="score")) == ["none.jpg", "weak.jpg", "rivals.jpg", "sure.jpg"]
    assert names(rank_images(run, 2, by="rivals")) == ["rivals.jpg", "none.jpg"]  # both 1: in the order of the run
    assert names(rank_images(run, 2, by="overlap")) == ["none.jpg", "rivals.jpg"]
    assert names(rank_images(run, 9, by="margin"))[-1] == "sure.jpg"
    assert [rank_images(run, 1, min_score=least).by for least in (0.0, 0.5)] == ["doubt", "score"]
    assert names(rank_images(run, 4, by="score", min_score=0.5)) == ["none.jpg", "weak.jpg", "rivals.jpg", "sure.jpg"]
    assert len(rank_images(run, 4, by="score", min_score=0.25).worst[1].answer.rows) == 1


def test_another_run_is_held_against(run: Path) -> None:
    other = read_instances_by_name(run / "annotations.json")
    other["sure.jpg"] = ()
    review = rank_images(run, 4, by="against", against=other)
    assert (names(review)[0], review.worst[0].risk, review.worst[1].risk) == ("sure.jpg", 1.0, 0.0)
    joined = rank_images(run, 4, by="joint", against=other)
    assert (names(joined)[0], joined.worst[0].risk) == ("sure.jpg", 1.0)
    assert list_reasons(review.worst[0], "against")[0].startswith("1 of 1 instances are not found again in the other run")
    with pytest.raises(InputError, match="none of them"):
        rank_images(run, 4, against={"elsewhere.jpg": ()})


def test_what_cannot_be_looked_at_again_comes_first(run: Path) -> None:
    def look(name: str, things: Any) -> Part:
        if name == "sure.jpg":
            raise ImageError("it is gone")
        return Part(0.1 * len(things), f"{name} shook")

    review = rank_images(run, 4, look=look, by="jitter")
    assert (review.by, review.unseen, names(review)[0]) == ("jitter", {"sure.jpg": "it is gone"}, "sure.jpg")
    assert list_reasons(review.worst[0], "jitter")[0] == "it could not be looked at again"
    assert names(review)[1:] == ["rivals.jpg", "weak.jpg", "none.jpg"]


def test_unknown_and_unfounded_risks_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'score'"):
        rank_images(run, 4, by="skore")
    with pytest.raises(InputError, match="--look"):
        rank_images(run, 4, by="jitter")
    with pytest.raises(InputError, match="--task instance"):
        rank_images(tmp_path, 4)


def test_the_folder_is_a_run_in_the_order_of_risk(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "review"
    write_review(rank_images(run, 3, by="score"), run, out)
    write_review(rank_images(run, 2, by="score"), run, out)  # over it
    file = CocoFile.read(out / "annotations.json")
    assert [image["file_name"] for image in file.images] == ["none.jpg", "weak.jpg"]
    assert [image["id"] for image in file.images] == [3, 4] and {r["image_id"] for r in file.annotations} == {4}
    assert [row["score"] for row in file.annotations] == [0.3, 0.2] and file.categories == CocoFile.with_categories(
        NAMES
    ).categories
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["0001-none.jpg", "0002-weak.jpg"]
    assert (out / "overlays" / "0002-weak.jpg").read_bytes() == (run / "overlays" / "weak.jpg").read_bytes()
    about = json.loads((out / "review.json").read_text())
    assert (about["by"], about["pictures"], [line["file_name"] for line in about["worst"]]) == (
        "score",
        4,
        ["none.jpg", "weak.jpg"],
    )
    assert about["worst"][0]["reasons"][0] == "nothing was found" and about["worst"][1]["risk"] == 0.75
    with pytest.raises(InputError, match="apart from the run"):
        write_review(rank_images(run, 2), run, run)
