"""From coarse boxes to drawn masks: SAM in one step or two.

N instances, H W pixels.  Two-step prompting (Zip, section 3.4): the coarse box gives a mask, the tight box of that mask is
the refined box, and its centre prompts again.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from annofree.ops.boxes import centres, tight_boxes
from annofree.protocols import Embedding, Masker

__all__ = ["Prompting", "SecondPrompt", "drawn"]

Prompting = Literal["none", "one-step", "two-step"]
SecondPrompt = Literal["point", "box+point"]


def drawn(
    sam: Masker, embedding: Embedding, boxes: npt.NDArray[np.float32], prompting: Prompting, second: SecondPrompt
) -> npt.NDArray[np.bool_]:
    """Draw one mask (N, H, W) for each coarse box (N, 4) px; a step that draws nothing leaves the one before.

    Whether the refined box is given again beside its centre is not said in the paper: ``second`` chooses.
    """
    first = _single(sam.draw(embedding, boxes=boxes).masks)
    if prompting == "one-step" or not len(boxes):
        return first
    refined = np.where(np.any(first, axis=(1, 2))[:, None], tight_boxes(first), boxes)
    again = sam.draw(embedding, boxes=refined if second == "box+point" else None, points=centres(refined))
    masks = _single(again.masks)
    return np.where(np.any(masks, axis=(1, 2))[:, None, None], masks, first)


def _single(masks: Tensor) -> npt.NDArray[np.bool_]:
    """The first mask of each prompt: (P, M, H, W) to (P, H, W)."""
    first: npt.NDArray[np.bool_] = masks[:, 0].cpu().numpy()
    return first
