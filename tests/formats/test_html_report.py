"""The report of a run: what it counts, what it shows, and that nothing in a name can break out of it."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.html_report import write_report
from annofree.formats.report_charts import histogram
from annofree.formats.run_summary import RunSummary
from annofree.structures import Image

HOSTILE = '<script>alert("x")</script>\'"&\n\x00\u202e\ud800 .jpg'
VOID = {"meta", "link", "img", "br", "rect", "line", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers them with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_run(folder: Path, files: Sequence[str], names: Sequence[str], **about: Any) -> Path:
    """A run of 20 x 30 pictures: picture k has k instances, of the classes in turn, scores 0.9, 0.8 ..."""
    (folder / "overlays").mkdir(parents=True)
    file = CocoFile.with_categories(dict(enumerate(names, 1)))
    for k, name in enumerate(files):
        overlay = f"overlays/{k} #.jpg"
        PIL.Image.new("RGB", (60, 40), (40 * k, 90, 90)).save(folder / overlay)
        id_ = file.add_image(name, (20, 30), overlay=overlay)
        for i in range(k):
            square = {"size": [20, 30], "counts": [0, 600]} if i else [[2, 2, 12, 2, 12, 12, 2, 12]]
            row = {"image_id": id_, "category_id": 1 + i % len(names), "segmentation": square, "bbox": [2, 2, 10, 10]}
            file.add_annotations([row | {"area": 100, "iscrowd": 0, "score": 0.9 - 0.1 * i}])
    text = json.dumps(file.__dict__)  # ASCII, so that a lone surrogate can stand in it
    (folder / "annotations.json").write_text(text)
    (folder / "run.json").write_text(json.dumps({"settings": {"models": "tiny"}, **about}))
    return folder


def test_counts(tmp_path: Path) -> None:
    summary = RunSummary.read(make_run(tmp_path / "run", ["a", "b", "c", "d"], ["dog", "cat", "cow"]), best=2)
    dog, cat, cow = summary.classes.values()
    assert [(c.instances, c.pictures) for c in (dog, cat, cow)] == [(3, 3), (2, 2), (1, 1)]
    assert dog.scores == pytest.approx(2.7) and (sum(dog.bins), dog.bins[18]) == (3, 3)
    assert [crop.score for crop in sorted(dog.best)] == [0.9, 0.9] and summary.instances == 6
    assert [p.instances for p in summary.pictures.values()] == [0, 1, 2, 3]
    assert summary.pictures[4].mean_score == pytest.approx(0.8) and summary.pictures[4].covered == 0.5


def test_the_page_shows_it_all_and_works_from_a_file(tmp_path: Path) -> None:
    model = {"name": "tiny-sam", "kind": "sam", "tier": "S2", "licence": "Apache-2.0"}
    run = make_run(tmp_path / "run", ["a.jpg", "b.jpg", "c.jpg"], ["dog", "cat"], provenance={"models": [model]})
    (run / "quarantine.json").write_text(json.dumps([{"id": "x.jpg", "reason": "cut short"}]))
    index = write_report(run, run / "report")
    page = Page(index.read_text(encoding="utf-8"))
    for words in ("Run of 3 pictures", "3 instances", "x.jpg", "cut short", "tiny-sam", "Apache-2.0", "supervision tier S2"):
        assert words in page.text
    for image in page.of("img"):
        assert image["alt"] and image["src"]
        with PIL.Image.open(index.parent / unquote(image["src"])) as opened:
            opened.load()
    links = [a["href"] or "" for a in page.of("a")]
    own = {a["id"] for _, a in page.tags if a.get("id")}
    assert all(link[1:] in own for link in links if link.startswith("#"))
    assert {link for link in links if not link.startswith("#")} == {f"../overlays/{k}%20%23.jpg" for k in range(3)}
    assert not page.of("script") and not page.of("link") and "http" not in index.read_text().replace("http-equiv", "")
    assert page.of("html")[0]["lang"] == "en" and all(svg.get("aria-label") or svg["aria-hidden"] for svg in page.of("svg"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [HOSTILE, HOSTILE + "b"], [HOSTILE, "</style><img src=x onerror=y>"], remarks=[HOSTILE])
    (run / "quarantine.json").write_text(json.dumps({HOSTILE: "<b>why</b>"}))
    text = write_report(run, run / "report").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.of("script") and not page.of("b")
    assert all(set(a) <= {"src", "alt", "width", "height", "loading"} for a in page.of("img"))
    assert '<script>alert("x")</script>' in page.text and "<b>why</b>" in page.text
    assert not re.search(r"[\x00\u202e]", text)


def test_reports_replace_reports_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.jpg", "b.jpg"], ["dog"])
    out = tmp_path / "out"
    first = write_report(run, out).read_text()
    (out / "pictures" / "999.jpg").write_text("left")
    assert write_report(run, out).read_text() == first and not (out / "pictures" / "999.jpg").exists()
    assert "../" not in first  # a report that lies elsewhere stands alone
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="choose another"):
        write_report(run, out)
    assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"run\.json"):
        write_report(tmp_path, tmp_path / "new")


def test_rows_are_best_least_sure_and_emptiest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["none", "one", "two", "three"], ["dog"])
    page = write_report(run, run / "report", shown=2).read_text()
    rows = {
        key: re.findall(r"<figcaption><bdi>(\w+)", page.split(f'<h2 id="{key}"')[1].split("</section>")[0])
        for key in ("best", "least", "empty")
    }
    assert rows == {"best": ["one", "two"], "least": ["three", "two"], "empty": ["none", "one"]}


def test_crops_are_pale_outside_the_mask(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], ["dog"])
    asked: list[str] = []

    def opened(name: str) -> Image:
        asked.append(name)
        return Image(np.full((20, 30, 3), (200, 0, 0), np.uint8))

    write_report(run, tmp_path / "out", picture=opened)
    with PIL.Image.open(tmp_path / "out" / "sheets" / "001.jpg") as sheet:
        inside, edge = np.asarray(sheet)[56 + 80, 10 + 80].astype(int), np.asarray(sheet)[56 + 4, 10 + 80].astype(int)
    assert asked == ["b"] and abs(inside - (200, 0, 0)).max() < 30 and edge[1] > 120


def test_runs_without_instances_and_without_pictures(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "labels").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"timings": {"images": 2}, "failed": {"a": "b"}, "command": ["annofree", "x"]}))
    (run / "labels" / "shares.json").write_text(json.dumps({"mean": {"sky": 0.25}}))
    page = Page(write_report(run, run / "report").read_text())
    assert "Run of 2 pictures" in page.text and "25.0 %" in page.text and "annofree x" in page.text
    gone = make_run(tmp_path / "gone", ["a", "b"], ["dog"])
    for overlay in (gone / "overlays").iterdir():
        overlay.unlink()
    assert "no picture" in Page(write_report(gone, gone / "report").read_text()).text


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
    assert "4 values, the middle one between 0.50 and 0.75" in histogram([1, 0, 3, 0], "Scores")
    assert "nothing to count" in histogram([0, 0], "Scores") and histogram([2, 1], 'a"b').count('"b') == 0
