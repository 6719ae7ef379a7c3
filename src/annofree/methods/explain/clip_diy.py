"""The steps of CLIP-DIY, as drawings: likeness at each scale, the mean of the scales, objectness, and both together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import PIL.Image
from torch import Tensor

from annofree.clues.background import with_negatives
from annofree.clues.crops import average_tiles
from annofree.methods.dense.clip_diy import ClipDiy, ClipDiyEncoding
from annofree.methods.explain.subject import MOST_DRAWN, Subject, list_some, to_numpy
from annofree.render.step_pictures import draw_heat
from annofree.render.steps_page import Drawing, Step

__all__ = ["explain_clip_diy"]

_NAMES = MOST_DRAWN // 2


def explain_clip_diy(method: ClipDiy, subject: Subject) -> Iterator[Step]:
    """Draw CLIP-DIY's maps up to its label map, for the names that own most of it."""
    encoding: ClipDiyEncoding = subject.encoding
    rows = with_negatives(subject.asked, subject.near)
    asked = method.settings.background.list_rows(rows)
    grids, (size, where) = method.compute_similarity(encoding, asked.rows), method.place_objectness(encoding)
    scores = method.compute_scores(encoding, rows)
    things = [k for k, own in enumerate(asked.owner) if own != asked.background]
    chosen = subject.choose_rows(asked.rows.names, things, scores.argmax(0))[:_NAMES]
    names = [asked.rows.names[k] for k in chosen]
    each = [
        average_tiles([g[chosen]], [t], size, method.settings.placement) for g, t in zip(grids, encoding.tiles, strict=True)
    ]
    scales = [
        f"scale {s}, {t.grid[0]} x {t.grid[1]} windows" for s, t in zip(method.settings.scales, encoding.tiles, strict=True)
    ]
    mean = average_tiles([g[chosen] for g in grids], encoding.tiles, size, method.settings.placement)
    light = min(float(m.min()) for m in each), max(float(m.max()) for m in each)
    drawn = [
        Drawing(f"{name}, {scale}", _heat(subject, m[k], light))
        for k, name in enumerate(names)
        for scale, m in zip(scales, each, strict=True)
    ]
    left = f" Of {len(asked.rows)} rows {len(chosen)} are drawn: {list_some(names)}."
    words = "How much each window looks like a name, drawn where the window lies; light means the same on all of these." + left
    yield Step("Likeness at each scale", words, tuple(drawn))
    yield _maps(subject, "Mean of the scales", "The scales are averaged.", names, mean, light)
    if where is None:
        return
    words = "Where things are, whatever they are called: it weighs the names, and what it leaves weighs the background's words."
    yield Step("Objectness", words, (Drawing("dark: no thing; light: a thing", draw_heat(subject.image, to_numpy(where))),))
    told, most = scores[chosen], float(scores[chosen].max())
    words = "The mean of the scales times the objectness; the strongest name of a pixel is its label."
    yield _maps(subject, "Likeness where things are", words, names, told, (float(told.min()), most))


def _maps(subject: Subject, title: str, words: str, names: Sequence[str], maps: Tensor, light: tuple[float, float]) -> Step:
    return Step(title, words, tuple(Drawing(n, _heat(subject, m, light)) for n, m in zip(names, maps, strict=True)))


def _heat(subject: Subject, values: Tensor, light: tuple[float, float]) -> PIL.Image.Image:
    """Draw values (H, W) from the least to the most of ``light``."""
    low, high = light
    return draw_heat(subject.image, (to_numpy(values) - low) / max(high - low, 1e-12))
