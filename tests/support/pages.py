"""Reading a page as a browser would, as far as tests need it: its tags, its text, and what its policy lets run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from annofree.render.html import hash_source

__all__ = ["HOSTILE", "Page", "assert_strict"]

HOSTILE = '<script>alert("x")</script>\'"&\n\x00\u202e\ud800 .jpg'
"""A name that tries to break out of wherever it is put."""

_VOID = {"meta", "link", "img", "br", "rect", "line", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers them with their attributes, the text, and what scripts and styles hold."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.sources: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.sources.append((self.open[-1], data))
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def having(self, attribute: str) -> list[Mapping[str, str | None]]:
        return [attributes for _, attributes in self.tags if attribute in attributes]

    @property
    def data(self) -> Any:
        """What the page hands to its script."""
        return next((json.loads(text) for kind, text in self.sources if text.startswith("{")), None)

    @property
    def policy(self) -> dict[str, str]:
        (content,) = (a["content"] or "" for a in self.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
        return dict(rule.split(" ", 1) for rule in content.split("; "))


def assert_strict(page: Page) -> None:
    """Nothing runs or loads but the page's own style, its own script, and the images beside it; links within lead somewhere."""
    ids = [a["id"] for a in page.having("id")]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.having("href") if str(a["href"]).startswith("#")} <= set(ids)
    code = [text for kind, text in page.sources if kind == "script" and not text.startswith("{")]
    (style,) = (text for kind, text in page.sources if kind == "style")
    assert page.policy == {
        "default-src": "'none'",
        "img-src": "'self' file:",
        "style-src": hash_source(style),
        "script-src": hash_source(code[0]) if code else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(code) <= 1 and all(set(a) <= {"type", "id"} for a in page.of("script"))
    assert not any(name == "style" or name.startswith("on") for _, attributes in page.tags for name in attributes)
    places = [str(a[key]) for key in ("src", "href", "srcset") for a in page.having(key)]
    assert not any("//" in place or place.startswith(("/", "javascript:", "data:")) for place in places)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {name for name, _ in page.tags}
