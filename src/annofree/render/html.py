"""The base of all HTML pages: templates beside this file, one style sheet and one script.

A page works offline from a file.  All text is escaped, and its Content-Security-Policy
allows only the page's own style, its own script and the images beside it.
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

from annofree.ops.palette import assign_colors, to_hex
from annofree.render.svg import draw_bar, draw_histogram, show_invisible

__all__ = ["TEMPLATES", "assign_class_colors", "format_count", "hash_source", "render_template"]

TEMPLATES = Path(__file__).with_name("templates")
"""The folder of the templates, the style sheet and the script."""


def assign_class_colors(names: Iterable[str]) -> dict[str, str]:
    """Return the CSS color of each class, by its index in the run; all class colors of a page come from here.

    >>> colors = assign_class_colors(["dog", "cat"])
    >>> list(colors), len(colors["dog"]), colors["dog"][0]
    (['dog', 'cat'], 7, '#')
    """
    return {name: to_hex(color) for name, color in assign_colors(list(names)).items()}


def render_template(
    template: str, *, generator: str, title: str, names: Iterable[str] = (), script: bool = False, **values: Any
) -> str:
    """Return a page from a template that extends base.html.

    The k-th of ``names`` colors whatever has ``data-class="k"``.  Without ``script`` none may run.  The output is
    deterministic.  Raises jinja2.UndefinedError if a template value is missing.
    """
    style = _file("style.css") + _class_rules(assign_class_colors(names))
    code = _file("page.js") if script else ""
    page = {"policy": _policy(style, code), "style": _own(style), "script": _own(code)}
    return _environment().get_template(template).render(generator=generator, title=title, **page, **values)


def hash_source(text: str) -> str:
    """Return the Content-Security-Policy hash of an inline script or style.

    >>> hash_source("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Format a count with its noun.

    >>> format_count(1, "image"), format_count(1200, "class", "classes")
    ('1 image', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _policy(style: str, script: str) -> str:
    rules = {
        "default-src": "'none'",
        "img-src": "'self' file:",  # a page opened from a file is of no origin, so 'self' need not match what lies beside it
        "style-src": hash_source(style),
        "script-src": hash_source(script) if script else "'none'",
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
    environment.globals |= {"bar": draw_bar, "histogram": draw_histogram, "count_of": format_count}
    return environment


def _shown(value: Any) -> Any:
    """Finalize a value of a page: replace invisible characters; escaping follows."""
    return show_invisible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _own(text: str) -> Markup:
    return Markup(text)  # noqa: S704 -- files of this package, and colors
