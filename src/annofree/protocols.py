"""What the rooms ask of each other, as small protocols; anything that fits may be passed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.structures import BoolArray, Classes, Detections, FeatureMap, FloatArray, Image, LabelMap, Vocabulary

__all__ = [
    "ClassAgnosticSegmenter",
    "DensePath",
    "Described",
    "DetectorBackend",
    "Embedding",
    "Encoding",
    "Keep",
    "Masker",
    "Method",
    "MixableClip",
    "Objectness",
    "PromptedMasks",
    "RawClip",
    "RawDetections",
    "ReleasedReader",
    "Segmenter",
    "SelfSupervised",
    "SemanticSegmenter",
    "Sized",
    "SureMasker",
    "SureMasks",
    "Sureness",
    "Tokened",
    "UniversalSegmenter",
    "VisionLanguage",
]

DensePath = Literal["value", "value+mlp", "surgery", "attention"]
"""How a CLIP tower's last layers are read as a map.

``value``: the value and output projections of the last attention alone; ``value+mlp``: those with the residual and the MLP
around them (MaskCLIP's official ViT); ``surgery``: value-value attention over the last blocks, no MLP (CLIP Surgery);
``attention``: the tower's own last tokens, as they are.
"""


Encoding = Any
"""What a method remembers of an image, for itself alone: another type for each method."""


class Described(Protocol):
    """A model that says what it is."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and supervision tier of the weights."""
        ...


class VisionLanguage(Described, Protocol):
    """A CLIP whose inner maps can be read.  All features that meet text are unit vectors."""

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        ...

    @property
    def side(self) -> int:
        """Side in px of the squares that it looks at, to which ``encode_squares`` brings others."""
        ...

    @property
    def paths(self) -> tuple[DensePath, ...]:
        """The ways in which its last layers can be read as a map."""
        ...

    def with_prompts(self, templates: str) -> VisionLanguage:
        """Return this model with another set of prompts, by name."""
        ...

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """What a person should know before trusting this model with these names."""
        ...

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        ...

    def encode_null_text(self) -> Tensor:
        """The text feature that says nothing in particular, (D)."""
        ...

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in an image at all, (K) in 0 .. 1, each class by itself."""
        ...

    def compute_evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole image's cosine, and the mean clue of its best cells."""
        ...

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D)."""
        ...

    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        """Text-aligned unit features of each cell, (D, h, w) per image, by a path or by the model's best one."""
        ...

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Intermediate features that change from object to object (conv4_x of a ResNet), (C, h, w) per image."""
        ...

    def encode_crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature a box (N, 4) px, (N, D): of the crop itself, or pooled from one pass by RoIAlign."""
        ...

    def encode_squares(self, pixels: Tensor) -> Tensor:
        """One unit feature a square image, (N, D), of float RGB (N, 3, s, s) in 0 .. 1 at any size s."""
        ...


@runtime_checkable
class RawClip(Protocol):
    """A CLIP whose features can be had before they are made unit vectors, as released code divides or weighs them otherwise."""

    def encode_raw(self, images: Sequence[Image], path: DensePath | None = None) -> list[tuple[FeatureMap, Tensor]]:
        """Text-aligned features of each cell as they are, (D, h, w), and class tokens of the same pass (S, D), per image."""
        ...


@runtime_checkable
class MixableClip(Protocol):
    """A CLIP whose last attention can be replaced: its values are had, mixed by another's likeness, and then meet text."""

    def extract_values(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The last attention's values through its output projection, (C, h, w) per image."""
        ...

    def align_values(self, cells: Tensor) -> Tensor:
        """Values (C, h, w), or means of them, as unit features (D, h, w) that meet text."""
        ...


@runtime_checkable
class ReleasedReader(Protocol):
    """A CLIP that can read its cells as MaskCLIP's released code does."""

    def with_released_reading(self) -> VisionLanguage:
        """Return this model with the released activation, constants, statistics, sizes and padding, for dense features."""
        ...


class SelfSupervised(Described, Protocol):
    """A vision transformer trained without labels (DINO), read patch by patch."""

    @property
    def heads(self) -> int:
        """Attention heads of the last block."""
        ...

    @property
    def patch(self) -> int:
        """Side of a patch in px."""
        ...

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Keys of the last block, heads concatenated, unnormalized, (D, h, w) per image."""
        ...

    def extract_attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        """How much the class token attends to each patch in the last block, (heads, h, w) per image."""
        ...

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        """Both, from one pass."""
        ...


@runtime_checkable
class Tokened(Protocol):
    """A self-supervised vision transformer whose last tokens can be had, too."""

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Patch tokens after the final norm, (D, h, w) per image."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A model whose images can be brought to another size."""

    def with_side(self, side: int) -> Any:
        """Return the model with images resized to a short side of ``side`` px."""
        ...


class Objectness(Protocol):
    """Where things are, whatever they are."""

    @property
    def provenance(self) -> dict[str, Any]:
        """How the maps are made, and the name, hashes, license and tier of the weights."""
        ...

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """How likely each pixel belongs to some thing, (H, W) in 0 .. 1 per image."""
        ...


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a masker keeps of an image between prompts: its ``size`` (H, W) and its own ``state``."""

    size: tuple[int, int]
    state: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class PromptedMasks:
    """Answers to P prompts: ``masks`` (P, M, H, W) bool and ``quality`` (P, M), the masker's own guess of each IoU.

    ``stability`` (P, M), where the masker can tell: the IoU of a mask cut a little higher with the same cut a little lower.
    """

    masks: Tensor
    quality: Tensor
    stability: Tensor | None = None


class Masker(Described, Protocol):
    """A promptable segmenter: it draws the thing that a box or a point means, and does not name it."""

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode images once, for any number of prompts."""
        ...

    def predict_masks(
        self,
        embedding: Embedding,
        *,
        boxes: FloatArray | None = None,
        points: FloatArray | None = None,
        multimask: bool = False,
    ) -> PromptedMasks:
        """Draw one mask a prompt, or three with ``many``; boxes (P, 4) and points (P, 2) x y in px of the image."""
        ...


Keep = Literal["all", "best", "first"]
"""Of what a point may mean: all three masks, the one of the best quality, or the one mask of a masker that is asked for one."""


@dataclass(frozen=True)
class Sureness:
    """What a mask must reach to be drawn at all; the numbers are those of SAM's own generator of masks."""

    # which of a point's masks compete
    keep: Keep = "all"
    # the masker's own guess of a mask's IoU must be above it; 0 lets all pass
    quality: float = 0.88
    # least IoU of the mask cut a little higher with the same cut a little lower; 0 lets all pass
    stability: float = 0.95
    # logits by which those cuts are higher and lower than the mask's own
    offset: float = 1.0

    @property
    def multimask(self) -> bool:
        """Whether the masker is asked for three masks a point."""
        return self.keep != "first"

    def choose_masks(self, masks: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Of masks or logits (P, M, ...) and qualities (P, M) those that compete and are good enough, (N, ...) and (N)."""
        if self.keep == "best":
            rows, best = torch.arange(len(quality), device=quality.device), quality.argmax(1)
            masks, quality = masks[rows, best][:, None], quality[rows, best][:, None]
        good = quality > self.quality if self.quality > 0 else torch.ones_like(quality, dtype=torch.bool)
        return masks[good], quality[good]

    def pass_stable(self, stability: Tensor) -> Tensor:
        """Which are stable enough (N); what is not a number is not."""
        return stability >= self.stability if self.stability > 0 else torch.ones_like(stability, dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class SureMasks:
    """Some of the masks of some prompts, none empty: ``masks`` (N, H, W) bool, ``quality`` (N) as guessed, of any size."""

    masks: BoolArray
    quality: FloatArray


@runtime_checkable
class SureMasker(Protocol):
    """A masker that need not draw what is not sure, which is most of what a grid of points means."""

    def iterate_sure_masks(self, embedding: Embedding, points: FloatArray, sure: Sureness) -> Iterator[SureMasks]:
        """Sure masks of points (P, 2) x y px, in their order, a few at a time."""
        ...


class RawDetections(Protocol):
    """N things that a network found: ``labels`` (N) into its names, ``scores`` (N) and ``masks`` (N, H, W) bool."""

    @property
    def labels(self) -> Tensor:
        """Which of the network's names each is."""
        ...

    @property
    def scores(self) -> Tensor:
        """How sure it is, in 0 .. 1."""
        ...

    @property
    def masks(self) -> Tensor:
        """What belongs to each."""
        ...


class DetectorBackend(Protocol):
    """A network that finds things of the names that it was trained on, as those of ``annofree.detectors`` do."""

    def detect(self, pixels: list[Tensor]) -> Sequence[RawDetections]:
        """What is found in each image (3, H, W) in 0 .. 1, strongest first, labels into the names."""
        ...


@runtime_checkable
class Method(Protocol):
    """What methods have in common: all that needs no class name is done once, in ``encode``."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Models, hashes, tiers and settings, as they are written beside results."""
        ...

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        ...

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """One encoding an image, in order."""
        ...


@runtime_checkable
class Segmenter(Method, Protocol):
    """A method that finds instances, cheaply, in what it has encoded."""

    def instances(self, image: Image | Encoding, classes: Classes) -> Detections:
        """Find the instances of some classes in an image or in an encoding of it."""
        ...


@runtime_checkable
class ClassAgnosticSegmenter(Segmenter, Protocol):
    """A method that finds things without names; the one name that is asked for is put on all of them."""

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """Find the things of each image, called object."""
        ...


@runtime_checkable
class SemanticSegmenter(Method, Protocol):
    """A method that names every pixel, cheaply, of what it has encoded."""

    def semantic(self, image: Image | Encoding, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it."""
        ...


@runtime_checkable
class UniversalSegmenter(Segmenter, SemanticSegmenter, Protocol):
    """A method that does both."""
