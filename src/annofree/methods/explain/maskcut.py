"""The rounds of MaskCut, as drawings: the eigenvector of each cut, and the side that it takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from annofree.fragments.maskcut import Cut
from annofree.methods.class_agnostic.maskcut import MaskCut
from annofree.methods.explain.subject import Subject
from annofree.render.step_pictures import draw_heat, draw_pieces
from annofree.render.steps_page import Drawing, Step

__all__ = ["explain_maskcut"]


def explain_maskcut(method: MaskCut, subject: Subject) -> Iterator[Step]:
    """Draw the cuts of an image, round by round, and what is left of them at image edges."""
    _, cuts = method.cut(subject.image)
    for number, cut in enumerate(cuts, 1):
        words = (
            "The graph of DINO's keys is cut in two where it holds together the least; cells of earlier rounds count no more."
        )
        words += "" if cut.mask.any() else " The side is much the same as the last one, or too small, and is none."
        yield Step(f"Cut {number}", words, tuple(_drawn(subject, cut)))
    found = method.instances(subject.encoding, subject.asked)
    words = f"Each side, less what earlier ones hold, is drawn to image edges; {len(found)} of {len(cuts)} are left."
    yield Step("Masks", words, (subject.draw_nameless(found, f"{len(found)} masks"),))


def _drawn(subject: Subject, cut: Cut) -> Iterator[Drawing]:
    if cut.vector is not None:
        low, high = cut.vector.min(), cut.vector.max()
        yield Drawing("eigenvector", draw_heat(subject.image, (cut.vector - low) / max(high - low, 1e-12)))
    side = f"the side taken: {int(cut.mask.sum())} of {cut.mask.size} cells"
    yield Drawing(side, draw_pieces(subject.image, cut.mask.astype(np.int64)))
