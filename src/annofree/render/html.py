"""The one skeleton of every page: HTML from the templates beside this file, with one style sheet and one script.

A page needs no network and works from a file.  Text from outside is escaped wherever it stands, and its Content-Security-Policy
lets nothing run or load but the page's own style, its own script and the images beside it.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from annofree.ops.palette import colors_of, hexadecimal
from annofree.render.svg import bar, histogram, visible

__all__ = ["TEMPLATES", "class_colors", "count_of", "render", "source_hash"]

TEMPLATES = Path(__file__).with_name("templates")
"""The folder of the templates, the style sheet and the script."""


def class_colors(names: Iterable[str]) -> dict[str, str]:
    """Return the color of each class as CSS has it, by its place in the run; every color of a class on a page is from here.

    >>> colors = class_colors(["dog", "cat"])
    >>> list(colors), len(colors["dog"]), colors["dog"][0]
    (['dog', 'cat'], 7, '#')
    """
    return {name: hexadecimal(color) for name, color in colors_of(list(names)).items()}


def render(template: str, *, generator: str, title: str, names: Iterable[str] = (), script: bool = False, **values: Any) -> str:
    """Return a page from a template that extends base.html.

    The k-th of ``names`` colors whatever has ``data-class="k"``.  Without ``script`` none may run.  The same arguments give the
    same page.  Raises jinja2.UndefinedError where the template asks for a value that is not given.
    """
    style = _file("style.css") + _class_rules(class_colors(names))
    code = _file("page.js") if script else ""
    page = {"policy": _policy(style, code), "style": _own(style), "script": _own(code)}
    return _environment().get_template(template).render(generator=generator, title=title, **page, **values)


def source_hash(text: str) -> str:
    """Return what a Content-Security-Policy calls an inline script or style.

    >>> source_hash("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def count_of(count: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun.

    >>> count_of(1, "image"), count_of(1200, "class", "classes")
    ('1 image', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _policy(style: str, script: str) -> str:
    rules = {
        "default-src": "'none'",
        "img-src": "'self' file:",  # a page opened from a file is of no origin, so 'self' need not match what lies beside it
        "style-src": source_hash(style),
        "script-src": source_hash(script) if script else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{rule} {value}" for rule, value in rules.items())


def _class_rules(colors: Mapping[str, str]) -> str:
    return "".join(f'[data-class="{k}"]{{--color:{color}}}\n' for k, color in enumerate(colors.values()))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"bar": bar, "histogram": histogram, "count_of": count_of}
    return environment


def _shown(value: Any) -> Any:
    """What is put into a page: text loses its unseen signs, and is escaped after this."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _own(text: str) -> Markup:
    return Markup(text)  # noqa: S704 -- files of this package, and colors
