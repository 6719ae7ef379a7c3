"""How a method came to its answer as one page, its images inside of it."""

from __future__ import annotations

import re
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from annofree.methods.explain.explain import Explanation

__all__ = ["EXPLAIN_CSP", "write_explain_page"]

EXPLAIN_CSP = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "sandbox",
        "frame-ancestors 'none'",
    )
)
"""What such a page may do: show its own style and images."""

_IMAGE = re.compile(r'"(images/[\w.-]+\.png)"')


def write_explain_page(how: Explanation) -> str:
    """The page of an explanation with nothing beside it."""
    with tempfile.TemporaryDirectory() as folder:
        page = how.write(Path(folder) / "page")
        text = page.read_text(encoding="utf-8").replace("img-src 'self' file:", "img-src data:")
        return _IMAGE.sub(lambda found: f'"{_embed(page.parent / found[1])}"', text)


def _embed(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
