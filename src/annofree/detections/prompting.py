"""From coarse boxes to drawn masks: SAM in one step or two.

N instances, H W pixels.  Two-step prompting (Zip, section 3.4): the coarse box gives a mask, the tight box of that mask is
the refined box, and its center prompts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from annofree.ops.boxes import compute_centers, compute_tight_boxes
from annofree.protocols import Embedding, Masker, PromptedMasks

__all__ = ["REDRAWING", "Prompting", "Redraw", "SecondPrompt", "draw_masks"]

Prompting = Literal["none", "one-step", "two-step"]
SecondPrompt = Literal["point", "box+point"]
Redraw = Literal["none", "box", "box+point"]
"""How what is there is drawn anew: not, by its box, or then again by the box of what was drawn and the center of that."""

REDRAWING: Mapping[Redraw, Prompting] = MappingProxyType({"none": "none", "box": "one-step", "box+point": "two-step"})
"""The steps of each, whose second sees box and point."""


def draw_masks(
    sam: Masker, embedding: Embedding, boxes: npt.NDArray[np.float32], prompting: Prompting, second: SecondPrompt
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Draw one mask (N, H, W) for each coarse box (N, 4) px, with SAM's own guess of its IoU (N) in 0 .. 1.

    Prompts that are equal are asked once.  A step that draws nothing leaves the one before.  Whether the refined box is given
    again beside its center is not said in the paper: ``second`` chooses.
    """
    first, quality = _draw_each_once(sam, embedding, boxes, None)
    if prompting == "one-step" or not len(boxes):
        return first, quality
    refined = np.where(np.any(first, axis=(1, 2))[:, None], compute_tight_boxes(first), boxes)
    masks, better = _draw_each_once(sam, embedding, refined if second == "box+point" else None, compute_centers(refined))
    found = np.any(masks, axis=(1, 2))
    return np.where(found[:, None, None], masks, first), np.where(found, better, quality)


def _draw_each_once(
    sam: Masker, embedding: Embedding, boxes: npt.NDArray[np.float32] | None, points: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """The mask and the quality of each prompt, (P, H, W) and (P); the first of equal ones speaks for all."""
    given = [p for p in (boxes, points) if p is not None]
    _, first, same = np.unique(np.concatenate(given, 1), axis=0, return_index=True, return_inverse=True)
    kept = np.sort(first)
    masks, quality = _single(
        sam.predict_masks(
            embedding, boxes=None if boxes is None else boxes[kept], points=None if points is None else points[kept]
        )
    )
    if len(kept) == len(same):
        return masks, quality
    places = np.searchsorted(kept, first)[same]
    return masks[places], quality[places]


def _single(answers: PromptedMasks) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """The first mask of each prompt and its quality: (P, H, W), (P)."""
    return answers.masks[:, 0].cpu().numpy(), answers.quality[:, 0].clamp(0, 1).cpu().numpy()
