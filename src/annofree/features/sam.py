"""SAM, SAM-HQ, SAM 2 and EdgeTAM through transformers, behind the Masker protocol: one image embedding, many prompts.

P prompts, n points per prompt, M masks per prompt, H W pixels.  Each family's own geometry is kept: an image is padded to the
model's square (SAM, SAM-HQ) or squashed to it (SAM 2, EdgeTAM), as are coordinates, and logits are resized bilinearly back
to the image before they are cut at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.features.decoders.two_way import ImageSide, TwoWayDecoder
from annofree.features.sam_inputs import Fit, Frame, Prompts
from annofree.features.transformers_folder import load_folder
from annofree.hub.cards import Card
from annofree.io.read_json import read_model_config
from annofree.ops.linear import replace_linear_layers
from annofree.protocols import Embedding, PromptedMasks, SureMasks, Sureness
from annofree.structures import Image

__all__ = ["FAMILIES", "Family", "Sam"]

Floats = npt.NDArray[np.float32]

_PROMPTS_AT_ONCE = 64
_NEAR = 2**22  # bytes of cells that stay near a CPU's core and are used again: one prompt of 1024 px, or some of a small model
_SMALL = 512  # px; below it plain attention is the faster one on a CPU, and is written in the same steps for every machine


@dataclass(frozen=True)
class Family:
    """One architecture: the transformers class that holds it, and how images lie in its square."""

    model: str
    fit: Fit


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "sam": Family("SamModel", "pad"),
        "sam_hq": Family("SamHQModel", "pad"),
        "sam2": Family("Sam2Model", "squash"),
        "sam2_video": Family("Sam2Model", "squash"),  # the released SAM 2 folders; what only videos need stays unread
        "edgetam": Family("EdgeTamModel", "squash"),
        "edgetam_video": Family("EdgeTamModel", "squash"),
    }
)
"""By the ``model_type`` of config.json."""


class Sam:
    """A promptable segmenter from a model folder in transformers' layout (config.json, safetensors); in eval mode.

    Weights are read from safetensors only and must match the architecture exactly.  With a half ``dtype`` the
    coordinates of prompts are still embedded in float32; with a half ``encoder`` only images are encoded in it, by autocast,
    and prompts are decoded as without.  Raises MissingError without the files, and InputError for another
    architecture, broken or ill-fitting weights, or a pickle in place of safetensors.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        card: Card | None = None,
        dtype: torch.dtype = torch.float32,
        encoder: torch.dtype = torch.float32,
    ) -> None:
        self.card = Card.read(folder) if card is None else card
        self.device, self.dtype, self._encoder = torch.device(device), dtype, encoder
        kind, side = _architecture(folder)
        self._frame = Frame.read(folder, side, FAMILIES[kind].fit, self.card.use)
        self._kind = kind
        plain = self.device.type == "cpu" and side < _SMALL
        self._model = _cast(load_folder(folder, FAMILIES[kind].model, "eager" if plain else "sdpa"), dtype).to(self.device)
        replace_linear_layers(self._model)
        self._two_way = None if kind == "sam_hq" else TwoWayDecoder(self._model)  # SAM-HQ's masks come another way
        self._image: tuple[Tensor, ImageSide] | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and supervision tier of the weights; what images are encoded in, unless it is float32."""
        half = {"encoder": str(self._encoder).removeprefix("torch.")} if self._encoder != torch.float32 else {}
        return self.card.to_provenance() | half

    @torch.inference_mode()
    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode images in one batch."""
        if not images:
            return []
        x = torch.cat([self._frame.preprocess(i, self.device) for i in images])
        with torch.autocast(self.device.type, self._encoder, enabled=self._encoder != torch.float32):
            found = self._model.get_image_embeddings(x.to(self.dtype))
        state = [level.to(self.dtype) for level in self._state(found)]
        return [Embedding(image.size, tuple(level[[i]] for level in state)) for i, image in enumerate(images)]

    @torch.inference_mode()
    def predict_masks(
        self,
        embedding: Embedding,
        *,
        boxes: Floats | None = None,
        points: Floats | None = None,
        labels: npt.NDArray[np.integer] | None = None,
        multimask: bool = False,
    ) -> PromptedMasks:
        """Predict one mask per prompt, or three with ``multimask``; boxes (P, 4) and points (P, 2) x y in px of the image.

        Several points per prompt are (P, n, 2), with ``labels`` (P, n): 1 foreground (the default), 0 background.
        Raises InputError for other shapes or numbers.
        """
        prompts = Prompts.of(boxes, points, labels)
        if not len(prompts):
            return _nothing(embedding.size, multimask)
        placed = prompts.to_square(self._frame.scale(embedding.size), self.device)
        logits, quality = self._decoded_image(embedding.state, placed, multimask)
        return self._answer(logits, quality, embedding.size)

    @torch.inference_mode()
    def predict_masks_batch(
        self,
        embeddings: Sequence[Embedding],
        *,
        boxes: Sequence[Floats | None] | None = None,
        points: Sequence[Floats | None] | None = None,
        labels: Sequence[npt.NDArray[np.integer] | None] | None = None,
        multimask: bool = False,
    ) -> list[PromptedMasks]:
        """Predict masks in several images with few decoder calls; takes its arguments, one entry per image.

        No prompt is padded, since padding takes part in the attention: prompts of one kind are decoded together, each with
        the embedding of its own image.  Raises InputError unless there are as many entries as images.
        """
        absent: list[None] = [None] * len(embeddings)
        columns = [absent if c is None else c for c in (boxes, points, labels)]
        if any(len(c) != len(embeddings) for c in columns):
            raise InputError(f"expected prompts for {len(embeddings)} images, got {[len(c) for c in columns]}")
        prompts = [Prompts.of(*p) for p in zip(*columns, strict=True)]
        answers = {i: _nothing(e.size, multimask) for i, e in enumerate(embeddings) if not len(prompts[i])}
        for kind in sorted({p.kind for p in prompts if len(p)}):
            members = [i for i, p in enumerate(prompts) if len(p) and p.kind == kind]
            drawn = self._together([embeddings[i] for i in members], [prompts[i] for i in members], multimask)
            answers.update(zip(members, drawn, strict=True))
        return [answers[i] for i in range(len(embeddings))]

    @torch.inference_mode()
    def iterate_sure_masks(self, embedding: Embedding, points: Floats, sure: Sureness) -> Iterator[SureMasks]:
        """Sure masks of points (P, 2) x y px, in their order, a few at a time; what is not sure is not enlarged.

        Stability is counted in px of the image.  Raises InputError for other shapes or numbers.
        """
        prompts = Prompts.of(None, points, None).to_square(self._frame.scale(embedding.size), self.device)
        few, enlargement = self._count_at_once(embedding.state[-1]), None
        for piece in prompts.split(few):
            logits, quality = sure.choose_masks(*self._decoded_sure(embedding.state, piece, sure))
            enlargement = enlargement or self._frame.build_enlargement(logits.shape[-1], embedding.size, self.device)
            for some, good in zip(torch.split(logits, few), torch.split(quality.float().cpu(), few), strict=True):
                masks, stability = enlargement.cut_masks(some.float(), sure.offset)
                kept = sure.pass_stable(stability).numpy() & masks.any((1, 2))
                yield SureMasks(masks[kept], good.numpy()[kept])

    def _decoded_sure(self, state: Sequence[Tensor], prompts: Prompts, sure: Sureness) -> tuple[Tensor, Tensor]:
        """Low-resolution logits and qualities of prompts in one image that have a mask of enough quality, or more of them."""
        if self._two_way is None or sure.quality <= 0:
            return self._decoded_image(state, prompts, sure.multimask)
        given = prompts.to_inputs(batched=False)
        return self._two_way.decode_above(self._image_side(state), given, sure.multimask, sure.quality)

    def _together(self, embeddings: list[Embedding], prompts: list[Prompts], multimask: bool) -> list[PromptedMasks]:
        counts = [len(p) for p in prompts]
        placed = [p.to_square(self._frame.scale(e.size), self.device) for p, e in zip(prompts, embeddings, strict=True)]
        levels = [torch.cat(same) for same in zip(*(e.state for e in embeddings), strict=True)]
        owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        parts = [
            self._decoded([level[rows] for level in levels], piece.to_inputs(batched=True), multimask)
            for rows, piece in zip(
                torch.split(owner, _PROMPTS_AT_ONCE), Prompts.joined(placed).split(_PROMPTS_AT_ONCE), strict=True
            )
        ]
        logits, quality = (torch.split(torch.cat([part[k][:, 0] for part in parts]), counts) for k in (0, 1))
        return [self._answer(*each) for each in zip(logits, quality, (e.size for e in embeddings), strict=True)]

    def _answer(self, logits: Tensor, quality: Tensor, size: tuple[int, int]) -> PromptedMasks:
        return PromptedMasks(self._frame.resize_masks(logits, size), quality.float(), self._frame.score_stability(logits, size))

    def _state(self, found: Any) -> Sequence[Tensor]:
        """The encoder outputs that the decoder needs; of SAM-HQ's intermediate features only the first."""
        if self._kind == "sam":
            return [found]
        return [found[0], found[1][0]] if self._kind == "sam_hq" else list(found)

    def _decoded_image(self, state: Sequence[Tensor], prompts: Prompts, multimask: bool) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (P, M, s, s) and qualities (P, M) for prompts in one image."""
        if self._two_way is None:
            parts = [self._decoded(state, p.to_inputs(batched=False), multimask) for p in prompts.split(_PROMPTS_AT_ONCE)]
            return torch.cat([m[0] for m, _ in parts]), torch.cat([q[0] for _, q in parts])
        side = self._image_side(state)
        pieces = prompts.split(self._count_at_once(state[-1]))
        parts = [self._two_way.decode_prompts(side, p.to_inputs(batched=False), multimask) for p in pieces]
        return torch.cat([m for m, _ in parts]), torch.cat([q for _, q in parts])

    def _count_at_once(self, cells: Tensor) -> int:
        """How many prompts are decoded together in an image of these cells (1, C, rows, columns)."""
        if self.device.type != "cpu":
            return _PROMPTS_AT_ONCE
        return max(1, min(_PROMPTS_AT_ONCE, _NEAR // (cells.numel() * cells.element_size())))

    def _image_side(self, state: Sequence[Tensor]) -> ImageSide:
        """What the prompts of an image share, made once for as long as the same image is asked of."""
        if self._image is None or self._image[0] is not state[-1]:
            self._image = state[-1], cast(TwoWayDecoder, self._two_way).prepare_image(state[-1], *state[-2::-1])
        return self._image[1]

    def _decoded(self, state: Sequence[Tensor], prompts: dict[str, Tensor], multimask: bool) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, P, M, s, s) and qualities (B, P, M) for the embeddings (B, ...) of B images."""
        given: dict[str, Any] = {"image_embeddings": list(state)}
        if self._kind in ("sam", "sam_hq"):
            given = {"image_embeddings": state[0]}
        if self._kind == "sam_hq":
            given["intermediate_embeddings"] = [state[1]]
        out = self._model(**given, **prompts, multimask_output=multimask)
        return out.pred_masks, out.iou_scores


def _nothing(size: tuple[int, int], multimask: bool) -> PromptedMasks:
    m = 3 if multimask else 1
    return PromptedMasks(torch.zeros(0, m, *size, dtype=torch.bool), torch.zeros(0, m), torch.zeros(0, m))


def _architecture(folder: Path) -> tuple[str, int]:
    """The family and the side of its square, as config.json says."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"expected a SAM in transformers' layout in {folder}; there is no config.json")
    config = read_model_config(path)
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise build_unknown_error("architecture of a SAM", kind, FAMILIES)
    side = config.get("prompt_encoder_config", {}).get("image_size", 1024)
    return kind, int(side[0] if isinstance(side, list) else side)


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """Cast a model, except the embedding of prompt coordinates: in half precision it would move them by whole pixels."""
    coordinates = deepcopy(model.prompt_encoder.shared_embedding)
    model = model.to(dtype)
    model.prompt_encoder.shared_embedding = coordinates
    return model
