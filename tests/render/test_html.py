"""The skeleton of pages: what it escapes, what its policy lets run, and that its files come with the package."""

from importlib import resources

import jinja2
import numpy as np
import pytest
from tests.support.pages import HOSTILE, Page, assert_strict

from annofree.render.html import TEMPLATES, assign_class_colors, render_template
from annofree.render.page_maps import MOST_LAYERS, trace_layers

FILES = {"base.html", "parts.html", "report.html", "mistakes.html", "review.html", "steps.html", "style.css", "page.js"}


def test_templates_are_packaged() -> None:
    folder = resources.files("annofree.render") / "templates"
    assert FILES == {place.name for place in folder.iterdir()} == {place.name for place in TEMPLATES.iterdir()}


def test_every_page_is_of_the_one_skeleton() -> None:
    for name in FILES - {"base.html", "parts.html", "style.css", "page.js"}:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        assert text.startswith('{% extends "base.html" %}') and "|safe" not in text and "autoescape" not in text


def test_the_skeleton_is_strict_and_escapes_its_title() -> None:
    page = Page(render_template("base.html", generator="test", title=HOSTILE))
    assert_strict(page)
    assert page.policy["script-src"] == "'none'" and not page.of("script")
    assert page.text.count('<script>alert("x")</script>') == 2  # title and heading
    assert [tag for tag, _ in page.tags if tag in ("header", "main", "footer")] == ["header", "main", "footer"]
    assert_strict(Page(render_template("base.html", generator="test", title="t", script=True)))


def test_classes_are_colored_by_their_place_and_no_name_is_in_the_style() -> None:
    page = Page(render_template("base.html", generator="test", title="t", names=["dog", "</style>"]))
    (style,) = (text for kind, text in page.sources if kind == "style")
    dog, odd = assign_class_colors(["dog", "</style>"]).values()
    assert style.endswith(f'[data-class="0"]{{--color:{dog}}}\n[data-class="1"]{{--color:{odd}}}\n')


def test_a_value_that_is_not_given_is_no_blank() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_template("review.html", generator="test", title="t")


def test_the_script_takes_text_as_text() -> None:
    code = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch(", "import("):
        assert way not in code
    assert "</" not in code


def test_maps_of_many_names_share_their_last_layer() -> None:
    ids = np.repeat(np.arange(40, dtype=np.int32), np.arange(1, 41))[None]
    layers = trace_layers(ids, {k: f"name {k}" for k in range(1, 40)}, {})
    assert [layer.name for layer in layers] == [f"name {k}" for k in range(39, 39 - MOST_LAYERS, -1)] + [""]
    assert sum(layer.share for layer in layers) == pytest.approx(1 - 1 / ids.size)  # the first id has no name
