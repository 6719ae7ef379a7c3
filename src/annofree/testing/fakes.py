"""Fakes of CLIP, SAM, DINO and ZUTIS for the paper world: real shapes and dtypes, correct results, in milliseconds.

`FakeClip` knows colors by name, `FakeSam` draws what is connected, `FakeDino` tells colors apart without names,
`FakeObjectness` paint from paper, and `FakeZutis` proposes what is connected, with `FakeClip`'s features.  All keep nothing
between calls and run on the CPU.  They answer any image, but are right only where classes are the flat colors of
`paper_world`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from skimage.measure import label
from torch import Tensor

from annofree.errors import InputError
from annofree.protocols import DensePath, Embedding, PromptedMasks
from annofree.structures import BoolArray, FeatureMap, FloatArray, Image, IntArray, Vocabulary
from annofree.testing.paper_world import BACKGROUND, NAMES, classify_pixels

__all__ = ["FakeClip", "FakeDino", "FakeObjectness", "FakeSam", "FakeZutis"]

_CELL = 8  # px of a cell that meets text
_FINE_CELL = 2  # px of a cell of boundary features, which are finer in real models too
_BACKGROUND = len(NAMES)  # the axis after those of the classes
_DIMENSION = 64  # classes, background, and room for words that are in no image
_TRACE = 1e-5  # the cosine of a pixel or two in a scene
_QUERIES = 100
_QUALITIES = (0.98, 0.8, 0.6)  # the region itself is the best of the three answers


class FakeClip:
    """A vision-language model that sees flat colors: each class of the paper world is an axis, so is the background.

    >>> clip = FakeClip()
    >>> red = Image(np.full((16, 24, 3), (200, 30, 30), np.uint8))
    >>> (clip.encode_image([red]) @ clip.encode_text(Vocabulary.of("car, apple")).T).tolist()
    [[0.0, 1.0]]
    """

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        return _DIMENSION

    @property
    def side(self) -> int:
        """Side in px of the squares that it looks at; it takes any."""
        return 32

    @property
    def paths(self) -> tuple[DensePath, ...]:
        """All: it reads its cells in one way."""
        return get_args(DensePath)

    def with_prompts(self, templates: str) -> FakeClip:
        """Itself: colors need no prompts."""
        return self

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-clip", "licence": "Apache-2.0", "tier": "S0"}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """The words that no color stands for."""
        strangers = [w for words in vocabulary.synonyms for w in words if _axis(w) > _BACKGROUND]
        return [f"fake-clip has never read: {', '.join(strangers)}"] if strangers else []

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D) float32: the mean over its synonyms, made unit again."""
        axes = torch.eye(_DIMENSION)
        means = [axes[[_axis(word) for word in words]].mean(0) for words in vocabulary.synonyms]
        return torch.nn.functional.normalize(torch.stack(means), dim=1)

    def encode_null_text(self) -> Tensor:
        """The mean over all axes that images have, background among them, (D) float32: equally like every cell."""
        return torch.eye(_DIMENSION)[: _BACKGROUND + 1].mean(0)

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """1 for each class (K) of which ``whole`` (D) holds any, else 0."""
        return (words @ whole > _TRACE).float()

    def compute_evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole image's cosine, and the mean clue of its best cells."""
        return torch.stack([words @ whole, (words @ tokens.values.flatten(1)).max(1).values], 1)

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D) float32: what is in it, by share of area."""
        out = torch.zeros(len(images), _DIMENSION)
        for row, image in zip(out, images, strict=True):
            row[: _BACKGROUND + 1] = torch.from_numpy(_counts(classify_pixels(image.pixels)))
        return torch.nn.functional.normalize(out, dim=1)

    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        """Unit features of cells of about 8 px, (D, h, w) float32 per image, by any path: the axis of what fills most of it."""
        return [FeatureMap(torch.eye(_DIMENSION)[_fill_of_cells(i)].permute(2, 0, 1).contiguous(), i.size) for i in images]

    def encode_raw(self, images: Sequence[Image], path: DensePath | None = None) -> list[tuple[FeatureMap, Tensor]]:
        """The same, which are unit vectors already, and the feature of the whole image (1, D) for a class token."""
        return list(zip(self.encode_dense(images, path), self.encode_image(images)[:, None], strict=True))

    def extract_values(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The features of cells, twice as long: (D, h, w) float32 per image."""
        return [FeatureMap(2 * m.values, m.size) for m in self.encode_dense(images, "value")]

    def align_values(self, cells: Tensor) -> Tensor:
        """Such values (D, h, w), or means of them, as unit features."""
        return torch.nn.functional.normalize(cells, dim=0)

    def with_released_reading(self) -> FakeClip:
        """Itself: colors are read in one way."""
        return self

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The color of each cell of about 2 px, (3, h, w) float32 in 0 .. 1 per image; paper where a color ends.

        So clusters have bands between objects, as those of a real network do, and shades of one class differ.
        """
        return [FeatureMap(torch.from_numpy(_colors_and_gaps(image)), image.size) for image in images]

    def encode_crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature a box (N, 4) px, (N, D) float32: the axis of what fills most of it, pooled or not."""
        classes = classify_pixels(image.pixels)
        windows = [_window(box, image.size) for box in boxes]
        fills = [int(_counts(classes[rows, columns]).argmax()) for rows, columns in windows]
        return torch.eye(_DIMENSION)[fills]

    def encode_squares(self, pixels: Tensor) -> Tensor:
        """One unit feature a square image (N, 3, s, s) in 0 .. 1, (N, D) float32: what is in it, by share of area."""
        rgb = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return self.encode_image([Image(np.ascontiguousarray(p)) for p in rgb])


class FakeSam:
    """A promptable segmenter that draws regions of one color, 4-connected, at full resolution.

    A box means the region with the best IoU with it; a point the region under it, if it lies in the box that comes
    along.  With ``many`` follow all colored pixels connected with the region, and the filled box (without a box, the
    region's own).

    >>> pixels = np.full((4, 6, 3), 128, np.uint8)
    >>> pixels[1:3, 2:6] = 200, 30, 30
    >>> sam = FakeSam()
    >>> drawn = sam.predict_masks(sam.embed([Image(pixels)])[0], points=np.array([[5, 2]], np.float32), multimask=True)
    >>> tuple(drawn.masks.shape), drawn.masks.sum((2, 3)).tolist()
    ((1, 3, 4, 6), [[8, 8, 8]])
    """

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-sam", "licence": "Apache-2.0", "tier": "S0"}

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Label the regions and what they are connected with, two (H, W) int64 maps from 0, once an image."""
        return [Embedding(image.size, (_regions(_color_codes(image)), _regions(_colored(image)))) for image in images]

    def predict_masks(
        self,
        embedding: Embedding,
        *,
        boxes: FloatArray | None = None,
        points: FloatArray | None = None,
        multimask: bool = False,
    ) -> PromptedMasks:
        """Predict one mask per prompt, or three with ``many``; boxes (P, 4) and points (P, 2) x y in px of the image.

        Raises InputError without boxes and points, for invalid shapes, and for numbers that are not finite.
        """
        prompts = _prompts(boxes, points)
        regions, groups = (state.numpy() for state in embedding.state)
        areas = np.bincount(regions.reshape(-1))
        masks = np.zeros((len(prompts), 3 if multimask else 1, *embedding.size), bool)
        for i, prompt in enumerate(prompts):
            masks[i, 0] = regions == _meant(regions, areas, _window(prompt, embedding.size))
            if multimask:
                masks[i, 1] = groups == groups[masks[i, 0]][0]  # a region is all in one group
                masks[i, 2][_bounds(masks[i, 0]) if boxes is None else _window(boxes[i], embedding.size)] = True
        quality = torch.tensor(_QUALITIES)[: masks.shape[1]].repeat(len(prompts), 1)
        return PromptedMasks(torch.from_numpy(masks), quality)


class FakeDino:
    """A self-supervised transformer with patches of 8 px and two heads, that sees flat colors and attends to paint.

    As a real one it pads an image at the bottom and the right to whole patches, and its keys are not of unit length.

    >>> (keys,) = FakeDino().extract_keys([Image(np.full((8, 20, 3), (200, 30, 30), np.uint8))])
    >>> tuple(keys.values.shape), keys.size, keys.window
    ((14, 1, 3), (8, 20), (8, 24))
    """

    heads = 2
    patch = _CELL

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-dino", "licence": "Apache-2.0", "tier": "S0"}

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Keys (14, h, w) float32 per image: in each head the axis of what fills most of the patch, 2 and 3 long."""
        return [self._map(image, lambda fills: torch.cat([2 * fills, 3 * fills])) for image in images]

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Tokens (14, h, w) float32 per image, which here are the keys."""
        return self.extract_keys(images)

    def with_side(self, side: int) -> FakeDino:
        """Itself: it sees images at their own size."""
        return self

    def extract_attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Attention (2, h, w) float32 an image: patches of paint get eight times that of paper; the class token keeps a bit."""
        return [self._map(image, _attended) for image in images]

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        """Both."""
        return list(zip(self.extract_keys(images), self.extract_attention(images), strict=True))

    def _map(self, image: Image, values: Callable[[Tensor], Tensor]) -> FeatureMap:
        h, w = (-(-side // _CELL) for side in image.size)
        padded = np.full((h * _CELL, w * _CELL, 3), BACKGROUND, np.uint8)
        padded[: image.size[0], : image.size[1]] = image.pixels
        fills = torch.eye(_BACKGROUND + 1)[_fill_of_cells(Image(padded))].permute(2, 0, 1)
        return FeatureMap(values(fills), image.size, (h * _CELL, w * _CELL))


class FakeObjectness:
    """Paint is foreground, paper is background: exact to the pixel."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-objectness", "licence": "Apache-2.0", "tier": "S0"}

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """1 on paint and 0 on paper, (H, W) float32 per image."""
        return [torch.from_numpy(_colored(image)).float() for image in images]


class FakeZutis:
    """A trained segmenter that proposes each region of one color, paper too, at full resolution; the largest fifty.

    Each is proposed twice, the second time with a lower score, like redundant queries.

    >>> features, lengths, masks = FakeZutis().propose([Image(np.full((8, 20, 3), (200, 30, 30), np.uint8))])[0]
    >>> tuple(features.shape), masks.mean((1, 2)).tolist()
    ((64, 8, 20), [1.0, 0.75])
    """

    dimension = _DIMENSION
    side = 0

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, license and supervision tier: there are no weights."""
        return {"name": "fake-zutis", "licence": "Apache-2.0", "tier": "S0"}

    def propose(self, images: Sequence[Image], side: int = 0, longest: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Unit features (D, H, W), their lengths (H, W), all 1, and mask probabilities (Q, H, W) per image."""
        return [self._proposed(image) for image in images]

    def _proposed(self, image: Image) -> tuple[Tensor, Tensor, Tensor]:
        regions = _regions(_color_codes(image))
        largest = torch.bincount(regions.flatten()).argsort(descending=True, stable=True)[: _QUERIES // 2]
        masks = (regions == largest[:, None, None]).float()
        features = torch.eye(_DIMENSION)[torch.from_numpy(classify_pixels(image.pixels))].permute(2, 0, 1)
        return features, torch.ones(image.size), torch.cat([masks, 0.75 * masks])


def _attended(fills: Tensor) -> Tensor:
    paint = 1 + 7 * (1 - fills[_BACKGROUND])
    return torch.stack([paint / (paint.sum() + keeps) for keeps in (1, 2)])


def _axis(word: str) -> int:
    known = {name: axis for axis, name in enumerate((*NAMES, "background"))}
    spare = _BACKGROUND + 1
    # crc32, for Python's own hash of a text changes from run to run.
    return known.get(word.lower(), spare + crc32(word.lower().encode()) % (_DIMENSION - spare))


def _counts(classes: IntArray) -> FloatArray:
    """Pixels of each class, the background last: argmax names a class rather than an equal share of background."""
    return np.bincount(classes.reshape(-1), minlength=_BACKGROUND + 1).astype(np.float32)


def _grid(size: tuple[int, int], cell: int) -> tuple[int, int, IntArray]:
    """Return h, w and the cell (row-major) of each pixel; cells are even, and of ``cell`` px where that divides a side."""
    h, w = (max(1, round(side / cell)) for side in size)
    rows, columns = np.arange(size[0]) * h // size[0], np.arange(size[1]) * w // size[1]
    return h, w, rows[:, None] * w + columns


def _fill_of_cells(image: Image) -> Tensor:
    h, w, cells = _grid(image.size, _CELL)
    kinds = _BACKGROUND + 1
    counts = np.bincount((cells * kinds + classify_pixels(image.pixels)).reshape(-1), minlength=h * w * kinds)
    return torch.from_numpy(counts.reshape(h, w, kinds).argmax(2))


def _colors_and_gaps(image: Image) -> FloatArray:
    h, w, cells = _grid(image.size, _FINE_CELL)
    flat = cells.reshape(-1)
    sums = np.stack([np.bincount(flat, image.pixels[..., channel].reshape(-1), h * w) for channel in range(3)])
    means = sums / np.bincount(flat, minlength=h * w)
    ends = np.bincount(flat, _ends(image).reshape(-1), h * w) > 0
    return (np.where(ends, np.array(BACKGROUND)[:, None], means) / 255).reshape(3, h, w).astype(np.float32)


def _ends(image: Image) -> BoolArray:
    """Mark the pixels beside one of another color."""
    codes, out = _color_codes(image), np.zeros(image.size, bool)
    down, right = codes[1:] != codes[:-1], codes[:, 1:] != codes[:, :-1]
    out[1:] |= down
    out[:-1] |= down
    out[:, 1:] |= right
    out[:, :-1] |= right
    return out


def _color_codes(image: Image) -> IntArray:
    codes: IntArray = image.pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def _colored(image: Image) -> IntArray:
    """Return 1 where a pixel is colored; gray stays in as 0, so that a point on the background means something too."""
    colored: BoolArray = classify_pixels(image.pixels) != _BACKGROUND
    return colored.astype(np.int64)


def _regions(values: IntArray) -> Tensor:
    labels: IntArray = label(values, background=-1, connectivity=1).astype(np.int64) - 1
    return torch.from_numpy(labels)


def _prompts(boxes: npt.NDArray[np.float32] | None, points: npt.NDArray[np.float32] | None) -> FloatArray:
    """Return one box (P, 4) a prompt: a point that counts is the pixel it falls in."""
    _refuse_unfit(boxes, points)
    if points is None:
        return np.asarray(boxes, np.float32)
    corners = np.floor(points)
    pixels = np.concatenate([corners, corners + 1], 1).astype(np.float32)
    if boxes is None:
        return pixels
    within = np.all((points >= boxes[:, :2]) & (points < boxes[:, 2:]), axis=1, keepdims=True)
    return np.where(within, pixels, boxes).astype(np.float32)


def _refuse_unfit(boxes: npt.NDArray[np.float32] | None, points: npt.NDArray[np.float32] | None) -> None:
    given = [(p, width) for p, width in ((boxes, 4), (points, 2)) if p is not None]
    if not given:
        raise InputError("expected boxes (P, 4) or points (P, 2) to draw from, got neither")
    if any(p.ndim != 2 or p.shape[1] != width for p, width in given) or len({len(p) for p, _ in given}) != 1:
        shapes = " and ".join(str(p.shape) for p, _ in given)
        raise InputError(f"expected boxes (P, 4) and points (P, 2), as many of the one as of the other, got {shapes}")
    if not all(np.isfinite(p).all() for p, _ in given):
        raise InputError("expected boxes and points in pixels, got numbers that are not finite")


def _meant(regions: IntArray, areas: IntArray, window: tuple[slice, slice]) -> int:
    """Return the region with the best IoU with a window; with one of a single pixel that is the region there."""
    inside = regions[window]
    shared = np.bincount(inside.reshape(-1), minlength=len(areas))
    return int((shared / (areas + inside.size - shared)).argmax())


def _window(box: FloatArray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns that a box covers, to the nearest pixel and never empty."""
    low = [min(max(round(float(box[1 - axis])), 0), size[axis] - 1) for axis in (0, 1)]
    high = [min(max(round(float(box[3 - axis])), low[axis] + 1), size[axis]) for axis in (0, 1)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def _bounds(mask: BoolArray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
