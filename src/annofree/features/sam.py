"""SAM 2 through transformers, behind the Masker protocol: embed once, prompt often.

P prompts, M masks a prompt, H W pixels.  As the released predictor does, a picture is squashed to the model's square,
coordinates with it, and logits are resized bilinearly back to the picture before they are cut at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2Config, Sam2Model
from transformers.utils import logging

from annofree.features.pictures import pixels_of
from annofree.features.weights import Card
from annofree.protocols import Embedding, PromptedMasks
from annofree.structures import Image

__all__ = ["Sam"]

_PROMPTS_AT_ONCE, _LOGITS_AT_ONCE = 64, 2**26


class Sam:
    """A SAM 2 loaded from a model folder in transformers' layout; in eval mode, float32."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.card = Card.read(folder)
        config = Sam2Config.from_pretrained(folder)
        # the plain kernel: on a CPU faster than the fused one for so few tokens, and the same on every machine
        with _no_bars():
            model = Sam2Model.from_pretrained(
                folder, config=config, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            )
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._side: int = config.prompt_encoder_config.image_size
        self._mean, self._std = (torch.tensor(self.card.use[k], device=device) for k in ("mean", "std"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, licence and supervision tier of the weights."""
        return self.card.provenance()

    @torch.inference_mode()
    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode images in one batch."""
        x = torch.cat([pixels_of(i, (self._side, self._side), self._mean, self._std) for i in images])
        levels = self._model.get_image_embeddings(x)
        return [Embedding(image.size, tuple(level[[i]] for level in levels)) for i, image in enumerate(images)]

    @torch.inference_mode()
    def draw(
        self,
        embedding: Embedding,
        *,
        boxes: npt.NDArray[np.float32] | None = None,
        points: npt.NDArray[np.float32] | None = None,
        many: bool = False,
    ) -> PromptedMasks:
        """Draw one mask a prompt, or three with ``many``; boxes (P, 4) and points (P, 2) x y in px of the image."""
        count = len(boxes) if boxes is not None else len(points) if points is not None else 0
        if not count:
            m = 3 if many else 1
            return PromptedMasks(torch.zeros(0, m, *embedding.size, dtype=torch.bool), torch.zeros(0, m))
        step = max(1, min(_PROMPTS_AT_ONCE, _LOGITS_AT_ONCE // (embedding.size[0] * embedding.size[1])))
        pieces = [slice(start, start + step) for start in range(0, count, step)]
        parts = [
            self._draw(embedding, None if boxes is None else boxes[p], None if points is None else points[p], many)
            for p in pieces
        ]
        return PromptedMasks(torch.cat([m for m, _ in parts]), torch.cat([q for _, q in parts]))

    def _draw(
        self, embedding: Embedding, boxes: npt.NDArray[np.float32] | None, points: npt.NDArray[np.float32] | None, many: bool
    ) -> tuple[Tensor, Tensor]:
        state = list(embedding.state)
        height, width = embedding.size
        scale = torch.tensor([self._side / width, self._side / height], device=state[-1].device)
        prompts: dict[str, Tensor] = {}
        if boxes is not None:
            prompts["input_boxes"] = (torch.as_tensor(boxes, device=scale.device) * scale.repeat(2)).float()[None]
        if points is not None:
            prompts["input_points"] = (torch.as_tensor(points, device=scale.device) * scale).float()[None, :, None]
        out = self._model(image_embeddings=state, multimask_output=many, **prompts)
        logits = F.interpolate(out.pred_masks[0].float(), size=embedding.size, mode="bilinear", align_corners=False)
        return logits > 0, out.iou_scores[0].float()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' own progress bar off the terminal while a small model loads."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
