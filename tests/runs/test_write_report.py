"""The report of a run: what it counts, what it shows, and that nothing in a name can break out of it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import PIL.Image
import pytest
from tests.support.pages import HOSTILE, Page, assert_strict

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.render.html import assign_class_colors
from annofree.render.svg import draw_histogram
from annofree.runs.report_page import explain_scores
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.runs.store.summary import RunSummary
from annofree.runs.write_report import write_report
from annofree.structures import VOID, Detections, Image, LabelMap

GRAY = Image(np.full((20, 30, 3), 90, np.uint8))


def gray(name: str) -> Image:
    return GRAY


def make_run(folder: Path, files: Sequence[str], names: Sequence[str], overlays: bool = True, **about: Any) -> Path:
    """A run of 20 x 30 images: image k has k instances, of the classes in turn, scores 0.9, 0.8 ..."""
    (folder / "overlays").mkdir(parents=True)
    file = CocoFile.with_categories(dict(enumerate(names, 1)))
    for k, name in enumerate(files):
        overlay = f"overlays/{k} #.jpg"
        if overlays:
            PIL.Image.new("RGB", (60, 40), (40 * k % 256, 90, 90)).save(folder / overlay)
        id_ = file.add_image(name, (20, 30), overlay=overlay)
        for i in range(k):
            square = {"size": [20, 30], "counts": [0, 600]} if i else [[2, 2, 12, 2, 12, 12, 2, 12]]
            row = {"image_id": id_, "category_id": 1 + i % len(names), "segmentation": square, "bbox": [2, 2, 10, 10]}
            file.add_annotations([row | {"area": 100, "iscrowd": 0, "score": 0.9 - 0.1 * i}])
    text = json.dumps(file.__dict__)  # ASCII, so that a lone surrogate can stand in it
    (folder / "annotations.json").write_text(text)
    (folder / "run.json").write_text(json.dumps({"settings": {"models": "tiny"}, **about}))
    return folder


def shown(page: Page) -> list[str]:
    """The numbers of the images on a page, in order."""
    return [str(a["data-item"]) for a in page.having("data-item")]


def names_in(text: str) -> list[str]:
    return re.findall(r'<bdi class="name">([^<]*)', text)


# Counts


def test_counts(tmp_path: Path) -> None:
    summary = RunSummary.read(make_run(tmp_path / "run", ["a", "b", "c", "d"], ["dog", "cat", "cow"]), best=2)
    dog, cat, cow = summary.classes.values()
    assert [(c.instances, c.pictures) for c in (dog, cat, cow)] == [(3, 3), (2, 2), (1, 1)]
    assert dog.scores == pytest.approx(2.7) and (sum(dog.bins), dog.bins[18]) == (3, 3)
    assert [crop.score for crop in sorted(dog.best)] == [0.9, 0.9] and summary.instances == 6
    assert [p.instances for p in summary.pictures.values()] == [0, 1, 2, 3]
    assert summary.pictures[4].mean_score == pytest.approx(0.8) and summary.pictures[4].covered == 0.5


def test_the_slider_has_the_scores_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c", "d"], ["dog", "cat"])
    page = Page.read(write_report(run, run / "report", image=gray))
    rows = json.loads((run / "annotations.json").read_text())["annotations"]
    assert sorted(float(a["data-score"] or 0) for a in page.having("data-score")) == sorted(row["score"] for row in rows)
    assert sorted(str(a["data-class"]) for a in page.of("path")) == sorted(str(row["category_id"] - 1) for row in rows)
    for step in range(101):  # by the comparison that the script makes
        for k in range(2):
            own = [row for row in rows if row["category_id"] == k + 1 and row["score"] >= step / 100]
            told = {kind: sum(n for at, n in page.data[kind][k] if at >= step) for kind in ("instances", "images")}
            assert told == {"instances": len(own), "images": len({row["image_id"] for row in own})}


# What is shown


def test_the_page_shows_it_all_and_works_from_a_file(tmp_path: Path) -> None:
    model = {"name": "tiny-sam", "kind": "sam", "tier": "S2", "licence": "Apache-2.0"}
    run = make_run(tmp_path / "run", ["a.jpg", "b.jpg", "c.jpg"], ["dog", "cat"], provenance={"models": [model]})
    (run / "quarantine.json").write_text(json.dumps([{"id": "x.jpg", "reason": "cut short"}]))
    index = write_report(run, run / "report")
    page = Page.read(index)
    for words in ("Run of 3 images", "3 instances", "x.jpg", "cut short", "tiny-sam", "Apache-2.0", "supervision tier S2"):
        assert words in page.text
    for image in page.of("img"):
        assert image["alt"] is not None and image["src"]
        with PIL.Image.open(index.parent / unquote(image["src"])) as opened:
            opened.load()
    links = [a["href"] or "" for a in page.of("a")]
    own = {a["id"] for _, a in page.tags if a.get("id")}
    assert all(link[1:] in own for link in links if link.startswith("#"))
    assert {link for link in links if not link.startswith("#")} == {f"../overlays/{k}%20%23.jpg" for k in range(3)}
    assert_strict(page)
    assert page.of("html")[0]["lang"] == "en" and all(svg.get("aria-label") or svg["aria-hidden"] for svg in page.of("svg"))


def test_a_small_run_is_shown_whole_and_each_image_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["none", "one", "two", "three"], ["dog"])
    text = write_report(run, run / "report", shown=2).read_text()
    assert names_in(text) == ["none", "one", "two", "three"] and shown(Page(text)) == ["1", "2", "3", "4"]
    assert "All 4 images of the run." in text and 'id="order"' in text
    (only,) = names_in(write_report(make_run(tmp_path / "1", ["one"], ["dog"]), tmp_path / "out").read_text())
    assert only == "one"


def test_a_large_run_has_the_surest_the_least_sure_and_the_emptiest_each_image_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["none", "one", "two", "three", "four", "five", "six"], ["dog"])
    text = write_report(run, run / "report", shown=2).read_text()
    parts = [names_in(text.split(f'<h3 id="row-{key}"')[1].split("</ul>\n<p")[0]) for key in ("surest", "least", "emptiest")]
    assert parts == [["one", "two"], ["six", "five"], ["none", "three"]]
    assert len(names_in(text)) == 6 == len(set(shown(Page(text)))) and 'id="order"' not in text
    assert_strict(Page(text))
    assert "6 of the run&#39;s 7 images, each once: the 2 surest, the 2 least sure, the 2 emptiest." in text
    assert names_in(write_report(run, run / "report", shown=0).read_text()) == []
    sparse = make_run(tmp_path / "sparse", ["none", "one"], ["dog"])
    file = CocoFile.read(sparse / "annotations.json")
    for k in range(8):
        file.add_image(f"none {k}", (20, 30))
    file.write(sparse / "annotations.json")
    text = write_report(sparse, sparse / "report", shown=2).read_text()
    assert names_in(text) == ["one", "none", "none 0"] and "The least sure" not in text


def test_instances_are_drawn_over_the_image_itself_else_the_drawing_of_the_run_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"], ["dog"])
    page = Page.read(write_report(run, run / "report", image=gray))
    assert not [svg for svg in page.of("svg") if "drawn" in str(svg["class"]).split()] and "was not found" not in page.text
    boxes = [a["viewbox"] for a in page.of("svg") if "instances" in str(a["class"])]
    assert boxes == ["0 0 1000 667"] * 2
    assert [str(a["d"])[:18] for a in page.of("path")] == ["M67 67l333 0 0 333", "M0 0l1000 0 0 667-", "M67 67l333 0 0 333"]
    with PIL.Image.open(run / "report" / "images" / "0002.jpg") as plain:
        assert plain.size == (30, 20) and plain.getpixel((10, 10)) == (90, 90, 90)
    page = Page.read(write_report(run, run / "report"))
    assert page.text.count("The image was not found") == 3
    assert len([svg for svg in page.of("svg") if "drawn" in str(svg["class"]).split()]) == 2
    other = Page.read(write_report(run, run / "report", image=lambda name: Image(np.zeros((9, 9, 3), np.uint8))))
    assert other.text.count("The image was not found") == 3  # one of another size is another image


def test_large_images_have_a_small_file_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    file = CocoFile.with_categories({1: "dog"})
    file.add_image("a.jpg", (1000, 3000))
    file.write(run / "annotations.json")
    (run / "run.json").write_text("{}")
    large = Image(np.zeros((1000, 3000, 3), np.uint8))
    index = write_report(run, run / "report", image=lambda name: large)
    (image,), (link,) = Page.read(index).of("img"), [a for a in Page.read(index).of("a") if a.get("class") == "open"]
    assert (image["src"], link["href"]) == ("images/0001-small.jpg", "images/0001.jpg")
    assert image["srcset"] == "images/0001-small.jpg 480w, images/0001.jpg 1600w"
    for name, size in {"0001.jpg": (1600, 533), "0001-small.jpg": (480, 160)}.items():
        with PIL.Image.open(index.parent / "images" / name) as written:
            assert written.size == size


def test_the_page_stays_small_whatever_the_run(tmp_path: Path) -> None:
    circle = Detections.from_masks(np.hypot(*np.ogrid[-60:60, -80:80])[None] < 50, [0], [0.5], ["x"]).to_coco(0)[0]
    rows = [circle | {"score": round(0.3 + 0.7 * k / 8, 3), "category_id": 1 + k} for k in range(8)]
    image, sizes = Image(np.full((120, 160, 3), 90, np.uint8)), []
    for count in (100, 2000):
        run = tmp_path / f"{count}"
        run.mkdir()
        file = CocoFile.with_categories({k: f"class {k}" for k in range(1, 9)})
        for k in range(count):
            id_ = file.add_image(f"{k}.jpg", (120, 160))
            file.add_annotations([row | {"image_id": id_} for row in rows])
        file.write(run / "annotations.json")
        (run / "run.json").write_text("{}")
        index = write_report(run, run / "report", crops=1, image=lambda name: image)
        assert len(shown(Page.read(index))) == 36 == len(list((run / "report" / "images").iterdir()))
        sizes.append(index.stat().st_size)
    assert sizes[1] < 1.02 * sizes[0] and sizes[1] < 200_000


# Label maps and panoptic maps


def run_with_maps(out: Path, tasks: Sequence[str], stuff: str = "sky") -> Path:
    """Two images of 20 x 30: half sky, a dog of 10 x 10 in one."""
    labels = np.zeros((20, 30), np.int32)
    labels[:10], labels[10:, :10], labels[0, 0] = 2, 1, VOID
    segments = np.zeros((20, 30), np.int64)
    segments[:10], segments[10:, :10] = 1, 2
    rows = [{"id": 1, "category_id": 2, "area": 300, "bbox": [0, 0, 30, 10], "iscrowd": 0}]
    rows += [{"id": 2, "category_id": 1, "area": 100, "bbox": [0, 10, 10, 10], "iscrowd": 0}]
    folder = RunFolder.create(out, ["dog", stuff], tasks=tasks, stuff=[stuff])
    names, mask = ResultNames(["a b.png", "c.png"]), (labels == 1)[None]
    found: dict[str, dict[str, Any]] = {
        "instance": {"detections": Detections.from_masks(mask, [0], [0.75], ["dog", stuff])},
        "semantic": {"labels": LabelMap(labels, ("background", "dog", stuff), background=0)},
        "panoptic": {"segments": (segments, rows)},
    }
    given = {key: value for task in tasks for key, value in found[task].items()}
    made = [folder.record(names.find_names(id_), GRAY.size, GRAY, **given) for id_ in ("a b.png", "c.png")]
    shares = {"sky": 0.5, "dog": 0.17} if "semantic" in tasks else None
    folder.finish(lambda: made, shares=shares)
    folder.write_summary({"settings": {}})
    return out


def test_label_maps_and_panoptic_maps_are_layers_a_name(tmp_path: Path) -> None:
    run = run_with_maps(tmp_path / "run", ["instance", "semantic", "panoptic"])
    index = write_report(run, run / "report", image=gray)
    page = Page.read(index)
    layers = [a for a in page.of("img") if "layer" in str(a.get("class")).split()]
    kinds = [(str(a["class"]).split()[1], a["data-class"], a["src"]) for a in layers[:4]]
    assert kinds == [
        ("labels", "1", "images/0001-labels-1.png"),
        ("labels", "0", "images/0001-labels-2.png"),
        ("panoptic", "1", "images/0001-panoptic-1.png"),
        ("panoptic", "0", "images/0001-panoptic-2.png"),
    ]
    assert [a["id"] for a in page.of("input") if a["type"] == "radio"] == [
        f"show-{kind}" for kind in ("instances", "labels", "panoptic", "nothing")
    ]
    with PIL.Image.open(index.parent / "images" / "0001-labels-1.png") as layer:
        pixels = np.asarray(layer.convert("RGBA"))
    there = pixels[..., 3] > 0
    assert there.sum() == 299 and not there[0, 0] and not there[10:].any()
    assert "#{:02x}{:02x}{:02x}".format(*pixels[5, 5, :3]) == assign_class_colors(["dog", "sky"])["sky"]
    assert pixels[5, 5, 3] < pixels[9, 5, 3] < 255  # the image shines through, less at the edge
    words = "a b.png: 1 dog; label map: sky 50 %, dog 17 %; panoptic map: sky 50 %, dog 17 %"
    assert words in {a["alt"] for a in page.of("img")}


@pytest.mark.parametrize("tasks", [["semantic"], ["semantic", "panoptic"], ["panoptic"]])
def test_maps_without_instances(tmp_path: Path, tasks: list[str]) -> None:
    run = run_with_maps(tmp_path / "run", tasks)
    asked = {"classes": [["dog"], ["sky"]], "tasks": tasks, "stuff": [], "part": "1/1", "root": "", "encodings": False}
    (run / "shards").mkdir()
    Chunks(run).begin({"format": 1, "asked": asked, "stretch": 2, "device": "cpu"}, ["a b.png", "c.png"])
    called: list[str] = []

    def opened(name: str) -> Image:
        called.append(name)
        return GRAY

    page = Page.read(write_report(run, run / "report", image=opened))
    assert called == ["a b.png", "c.png"] and "Run of 2 images" in page.text and "Scores are" not in page.text
    assert len([a for a in page.of("img") if "layer" in str(a.get("class"))]) == 4 * len(tasks)
    assert not page.having("data-score") and "show-instances" not in {a.get("id") for a in page.of("input")}
    (run / "shards" / "inputs.txt").unlink()
    assert "a b" in Page.read(write_report(run, run / "report")).text  # then results are called as their files


def test_maps_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    run = run_with_maps(tmp_path / "run", ["semantic", "panoptic"])
    (run / "labels" / "a b.png").write_bytes(b"none")
    PIL.Image.new("RGB", (30, 20)).save(run / "panoptic" / "c.png")
    page = Page.read(write_report(run, run / "report", image=gray))
    assert page.text.count("its label map cannot be read") == 1 == page.text.count("its panoptic map cannot be read")


# What scores mean


def test_the_page_says_what_a_score_means(tmp_path: Path) -> None:
    fit = {"fitted_on": "48 scenes"}
    calibrated = {"method": "zip", "policy": {"calibrated": True, "calibration": fit, "floor": 0.2}}
    raw = {"method": "zip", "policy": {"calibrated": False, "floor": 0.0}}
    assert explain_scores({"provenance": calibrated}) == (
        "Scores are calibrated: a score is the probability that mask (at IoU 0.5) and name are right, as fitted on 48 scenes. "
        "The run kept nothing below 0.20."
    )
    assert "are not calibrated" in explain_scores({"provenance": raw})
    assert "are calibrated" in explain_scores({"provenance": {"methods": [{"method": "clip_diy"}, calibrated]}})
    own = {"policy": {"calibrated": True, "floor": 0}, "settings": {"calibration": fit}}
    assert explain_scores({"provenance": own}).endswith("as fitted on 48 scenes.")
    remark = "the scores are not calibrated: they rank, but are no probabilities"
    for about, times in ((calibrated, 0), (raw, 1)):
        run = make_run(tmp_path / f"run {times}", ["a", "b"], ["dog"], provenance=about, remarks=["mind", remark])
        text = Page.read(write_report(run, run / "report")).text
        assert text.split("Classes")[0].count("not calibrated") == times and "Note: mind" in text  # said once, not twice


# Safety


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [HOSTILE, HOSTILE + "b"], [HOSTILE, "</style><img src=x onerror=y>"], remarks=[HOSTILE])
    (run / "quarantine.json").write_text(json.dumps({HOSTILE: "<b>why</b>"}))
    text = write_report(run, run / "report").read_text(encoding="utf-8")
    page = Page(text)
    assert_strict(page)
    assert len(page.of("script")) == 2 and not page.of("b")
    assert all(set(a) <= {"src", "alt", "width", "height", "loading"} for a in page.of("img"))
    assert '<script>alert("x")</script>' in page.text and "<b>why</b>" in page.text
    assert not re.search(r"[\x00\u202e]", text)


def test_hostile_names_of_maps_stay_text(tmp_path: Path) -> None:
    run = run_with_maps(tmp_path / "run", ["semantic", "panoptic"], "</style><img src=x onerror=y>")
    page = Page.read(write_report(run, run / "report", image=gray))
    assert_strict(page)
    assert "</style><img src=x onerror=y>" in page.text


# Writing


def test_reports_replace_reports_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.jpg", "b.jpg"], ["dog"])
    out = tmp_path / "out"
    first = write_report(run, out, image=gray).read_text()
    (out / "images" / "999.jpg").write_text("left")
    (out / "pictures").mkdir()  # of an earlier version
    assert write_report(run, out, image=gray).read_text() == first and not (out / "images" / "999.jpg").exists()
    assert "../" not in first  # a report that lies elsewhere stands alone
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="choose another"):
        write_report(run, out)
    assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"run\.json"):
        write_report(tmp_path, tmp_path / "new")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_with_maps(tmp_path / "run", ["instance", "semantic", "panoptic"])
    outs = [tmp_path / name for name in ("one", "two")]
    for out in outs:
        write_report(run, out, image=gray)
    files = [{p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in outs]
    assert files[0] == files[1] and len(files[0]) > 8


def test_crops_are_pale_outside_the_mask(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], ["dog"])
    write_report(run, tmp_path / "out", image=lambda name: Image(np.full((20, 30, 3), (200, 0, 0), np.uint8)))
    with PIL.Image.open(tmp_path / "out" / "sheets" / "001.jpg") as sheet:
        inside, edge = np.asarray(sheet)[56 + 80, 10 + 80].astype(int), np.asarray(sheet)[56 + 4, 10 + 80].astype(int)
    assert abs(inside - (200, 0, 0)).max() < 30 and edge[1] > 120


def test_runs_without_instances_and_without_images(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "labels").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"timings": {"images": 2}, "failed": {"a": "b"}, "command": ["annofree", "x"]}))
    (run / "labels" / "shares.json").write_text(json.dumps({"mean": {"sky": 0.25}}))
    page = Page.read(write_report(run, run / "report"))
    assert "Run of 2 images" in page.text and "25.0 %" in page.text and "annofree x" in page.text
    nothing = make_run(tmp_path / "nothing", ["a"], ["dog"])
    page = Page.read(write_report(nothing, nothing / "report", image=gray))
    assert "nothing found" in page.text and "Scores are" not in page.text and not page.having("data-score")
    gone = make_run(tmp_path / "gone", ["a", "b"], ["dog"], overlays=False)
    page = Page.read(write_report(gone, gone / "report"))
    assert page.text.count("no image") == 2 and [a["data-score"] for a in page.of("path")] == ["0.9"]


def test_damaged_runs_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], ["dog"])
    (run / "quarantine.json").write_text("{")
    with pytest.raises(InputError, match=r"quarantine\.json"):
        write_report(run, run / "report")
    (run / "quarantine.json").unlink()
    (run / "annotations.json").write_text(
        '{"images": [], "categories": [], "annotations": [{"image_id": 3, "bbox": [0, 0, 1, 1]}]}'
    )
    with pytest.raises(InputError, match=r"annotations\.json"):
        write_report(run, run / "report")
    assert not (run / "report").exists()


def test_histograms_say_what_they_show() -> None:
    assert "4 values, the middle one between 0.50 and 0.75" in draw_histogram([1, 0, 3, 0], "Scores")
    assert "nothing to count" in draw_histogram([0, 0], "Scores") and draw_histogram([2, 1], 'a"b').count('"b') == 0
