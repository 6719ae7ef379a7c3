"""Notebook rendering of detections and label maps, with or without their image."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.structures import Detections, Image, LabelMap

__all__ = ["render_detections", "render_detections_html", "render_detections_png", "render_label_map", "render_label_map_png"]

_GRAY = 112
"""Of the ground where no image is known: the colors of the palette, their rims and their tags stand out on it."""

_LONGEST = 800  # px of an image in a notebook, which keeps it with its text
_ROWS = 10  # of a table


def render_detections(
    found: Detections, image: Image | npt.NDArray[np.uint8] | None = None, min_score: float = 0.0, limit: int = 50
) -> PIL.Image.Image:
    """Draw detections over their image, or over gray; raises InputError for an image of another size.

    >>> render_detections(Detections.none((100, 200), ["dog"])).size
    (600, 300)
    """
    return draw_overlay(_ground(image, found.size), found, min_score, limit)


def render_label_map(
    label_map: LabelMap, image: Image | npt.NDArray[np.uint8] | None = None, limit: int = 30
) -> PIL.Image.Image:
    """Overlay a label map on its image, or on gray; raises InputError for an image of another size.

    >>> render_label_map(LabelMap(np.zeros((100, 50), np.int32), ("dog",))).size[1]
    600
    """
    return draw_label_map(_ground(image, label_map.size), label_map, limit)


def render_detections_png(found: Detections) -> bytes:
    """Return a PNG of masks over gray, of 800 px at most.

    >>> render_detections_png(Detections.none((100, 200), ["dog"]))[1:4]
    b'PNG'
    """
    return _png(render_detections(found))


def render_label_map_png(label_map: LabelMap) -> bytes:
    """Return a PNG of a label map over gray with its legend, of 800 px at most.

    >>> render_label_map_png(LabelMap(np.zeros((100, 50), np.int32), ("dog",)))[1:4]
    b'PNG'
    """
    return _png(render_label_map(label_map))


def render_detections_html(found: Detections) -> str:
    """Return the HTML of a notebook: the repr, masks over gray, and a table of the ten highest scores; names are escaped.

    >>> render_detections_html(Detections.none((100, 200), ["dog"]))
    '<p>Detections(0 of 200x100)</p>'
    """
    line = f"<p>{escape(repr(found))}</p>"
    if not len(found):
        return line
    image = b64encode(render_detections_png(found)).decode()
    shown = found[np.argsort(-found.scores, kind="stable")[:_ROWS]]
    columns = zip(shown.labels.tolist(), shown.scores.tolist(), shown.boxes.tolist(), shown.areas.tolist(), strict=True)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{score:.3f}</td><td>{' '.join(f'{v:g}' for v in box)}</td><td>{area}</td></tr>"
        for name, score, box, area in columns
    )
    head = "<tr><th>name</th><th>score</th><th>x0 y0 x1 y1</th><th>pixels</th></tr>"
    more = f"<p>and {len(found) - len(shown)} more</p>" if len(found) > len(shown) else ""
    return f'{line}<img alt="masks" src="data:image/png;base64,{image}"><table>{head}{rows}</table>{more}'


def _ground(image: Image | npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> Image:
    if image is None:
        return Image(np.full((*size, 3), _GRAY, np.uint8))
    return image if isinstance(image, Image) else Image(image)


def _png(image: PIL.Image.Image) -> bytes:
    image.thumbnail((_LONGEST, _LONGEST))
    kept = io.BytesIO()
    image.save(kept, "PNG")
    return kept.getvalue()
