"""CLIP image features: whole-image embeddings, dense text-aligned features, and conv4_x of a ResNet.

B images, D embedding, C channels, h w cells, N boxes, K classes.  The towers are open_clip's, unmodified.
Position embeddings are resized per call and never overwritten, so results do not depend on earlier calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error
from annofree.features.clip_network import LoadedClip, Tower, load_clip
from annofree.features.preprocessing import crop_image, map_by_size, preprocess_image, resize_pixels
from annofree.features.prompts import AVERAGED_RAW, TextFeatures, compute_fingerprint, find_text_cache, resolve_templates
from annofree.features.towers.released import RELEASED_SIDE, fit_released, prepare_released, read_as_released
from annofree.features.towers.resnet import CONV4_STRIDE
from annofree.hub.cards import BUNDLED, Card
from annofree.ops.grids import fit_size, shift_images, stitch_maps
from annofree.protocols import DensePath
from annofree.structures import FeatureMap, Image, Vocabulary

__all__ = ["Clip"]

_BATCH = 64  # squares at once
_DEFAULTS: dict[str, Any] = {
    "boundary_side": 1024,
    "whole": "squash",
    "shifts": 1,
    "boundary_shifts": 1,
    "margin": 0,
    "templates": "ensemble",
    "neutral": [""],
}
_USE = (*_DEFAULTS, "dense", "dense_side", "positions", "presence", "quick_gelu", "warning", "whole_side")


class Clip:
    """A CLIP ResNet or ViT with its text tower, from a folder in open_clip's layout; TIPSv2 or SigLIP 2 in transformers'.

    ``card`` describes the weights, for folders without a card.json of their own, such as a snapshot of the Hugging
    Face hub.  The image tower runs in ``dtype``; features are float32 in any case.

    The card's ``use``, overridden by the argument ``use``, holds optional settings: ``dense_side`` and ``boundary_side``,
    short sides in px (the native side; 1024); ``whole_side``, the square for whole images and crops (the native side), and
    ``whole``, whether an image is brought to it by ``squash`` (keeping the whole image) or ``crop`` (of the middle);
    ``shifts`` and ``boundary_shifts``, the shifts per side that refine the dense grid and that of boundaries (1), and
    ``margin``, the cells repeated around boundaries (0);
    ``dense``, the path of dense features (``value`` for a ResNet, ``surgery`` for a ViT); ``positions``, the rule that
    resizes position embeddings (each path's own); ``templates``, the prompts of a name or the name of a set
    (``ensemble``), and ``neutral``, the neutral texts (the empty one); ``presence``, two
    weights and an offset; ``quick_gelu``, the activation that the weights were trained with, overriding the configuration;
    ``warning``, a remark.

    Raises InputError and MissingError as ``load_clip`` and ``wrap_tower`` do, and InputError for an unknown setting.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        card: Card | None = None,
        dtype: torch.dtype = torch.float32,
        use: Mapping[str, Any] | None = None,
    ) -> None:
        for name in set(use or ()) - set(_USE):
            raise build_unknown_error("setting of CLIP", name, _USE)
        self.card = card or Card.read(folder)
        given = {**self.card.use, **(use or {})}
        loaded = _load(folder, device, dtype, given)
        self._loaded, self._model, self._tower = loaded, loaded.model, loaded.tower
        self._mean, self._std, self._tokenizer = loaded.mean, loaded.std, loaded.tokenizer
        native = {"dense": self._tower.default_path, "dense_side": self._tower.native, "whole_side": self._tower.native}
        self._use: dict[str, Any] = {**_DEFAULTS, **native, **given}
        if self._use["whole"] not in ("squash", "crop"):
            raise build_unknown_error("way to a square", self._use["whole"], ("squash", "crop"))
        self._templates = resolve_templates(self._use["templates"])
        self.device, self.dtype = torch.device(device), dtype
        self._texts = self._features_of_texts()

    @property
    def dimension(self) -> int:
        """D, the dimension of the text-aligned features."""
        return self._tower.dimension

    @property
    def tower(self) -> Tower:
        """The image tower, for networks that were trained on its inside."""
        return self._tower

    @property
    def side(self) -> int:
        """Input resolution in px."""
        return int(self._use["whole_side"])

    @property
    def paths(self) -> tuple[DensePath, ...]:
        """The supported paths of dense features."""
        return self._tower.paths

    def with_prompts(self, templates: str | Sequence[str]) -> Clip:
        """Return this model with other prompts: the name of a set, or templates; raises InputError for an unknown set."""
        twin = copy.copy(self)
        twin._use, twin._templates = self._use | {"templates": templates}, resolve_templates(templates)
        twin._texts = twin._features_of_texts()
        return twin

    def with_released_reading(self) -> Clip:
        """Return this model as MaskCLIP was released to read its cells, in one pass; see ``features/towers/released.py``.

        Raises InputError for a tower that is not CLIP's own.
        """
        twin = copy.copy(self)
        twin._tower = read_as_released(self._tower)
        twin._use = self._use | {"dense_side": RELEASED_SIDE, "shifts": 1, "reading": "released"}
        return twin

    @property
    def settings(self) -> dict[str, Any]:
        """The sizes, dense path and prompts that this model is used with."""
        return dict(self._use)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license, supervision tier, settings, and precision."""
        return self.card.to_provenance() | {"use": dict(self._use), "dtype": str(self.dtype).removeprefix("torch.")}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """The card's warnings, and the words outside the text tower's vocabulary."""
        strangers = [w for words in vocabulary.synonyms for w in words if self._tokenizer.is_unknown(w)]
        said = [f"{self.card.name} has never read: {', '.join(strangers)}"] if strangers else []
        return ([self._use["warning"]] if "warning" in self._use else []) + said

    def count_new_texts(self, vocabulary: Vocabulary) -> int:
        """How many texts ``encode_text`` would have to encode for these classes, which are not kept from earlier."""
        return self._texts.count_new_texts(vocabulary)

    @torch.inference_mode()
    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature per class (K, D): the mean over prompts, then over synonyms."""
        return self._texts.encode_classes(vocabulary).to(self.device)

    @torch.inference_mode()
    def encode_null_text(self) -> Tensor:
        """The neutral text feature (D): the mean over the neutral texts."""
        return self._texts.encode_names(self._use["neutral"]).mean(0).to(self.device)

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in an image, (K), each by itself.

        A logistic of the evidence, where it was fitted when the card was made.  Otherwise the softmax of CLIP's zero-shot
        classifier between the class and the neutral text: sigmoid(scale * (cos(whole, word) - cos(whole, neutral))).
        """
        if "presence" in self._use:
            *weights, offset = self._use["presence"]
            return torch.sigmoid(self.compute_evidence(whole, tokens, words) @ words.new_tensor(weights) + offset)
        margin = (words - F.normalize(self.encode_null_text(), dim=0)) @ whole
        return torch.sigmoid(self._loaded.scale * margin)

    def compute_evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole image's cosine, and the mean clue of its best 5 % of cells."""
        clues = (words - self.encode_null_text()) @ tokens.values.flatten(1)
        best = clues.topk(max(1, clues.shape[1] // 20), dim=1).values.mean(1)
        return torch.stack([words @ whole, best], 1)

    def _features_of_texts(self) -> TextFeatures:
        """Text features of names, cached on disk for weights with known hashes that are slow to evaluate."""
        known = bool(self.card.files) and all(self.card.files.values())
        key = f"{compute_fingerprint(self.card.files)} {self.dtype} {self._use.get('quick_gelu')}" if known else self.card.name
        cache = find_text_cache() if known and self.card.name not in BUNDLED else None
        raw = self._use["templates"] in AVERAGED_RAW
        return TextFeatures(self._encoded, key, self._templates, cache=cache, raw=raw)

    @torch.inference_mode()
    def _encoded(self, texts: list[str]) -> Tensor:
        """The text tower's features of T whole texts, (T, D), not normalized."""
        return self._loaded.encode_tokens(self._tokenizer(texts).to(self.device)).float()

    @torch.inference_mode()
    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """One unit feature per image, (B, D); each image is resized or cropped to a square."""
        return self._squares([(_middle(i) if self._use["whole"] == "crop" else i, None) for i in images])

    @torch.inference_mode()
    def encode_squares(self, pixels: Tensor) -> Tensor:
        """One unit feature a square image, (N, D), of float RGB (N, 3, s, s) in 0 .. 1 at any size s.

        They are resized where they are computed, with antialiasing.  Raises InputError for anything else.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3] or not pixels.is_floating_point():
            raise InputError(f"expected squares as float (N, 3, s, s) in 0 .. 1, got {pixels.dtype} {tuple(pixels.shape)}")
        side = self._use["whole_side"]
        features = [torch.zeros(0, self.dimension, device=self.device)]
        for start in range(0, len(pixels), _BATCH):
            x = resize_pixels(
                pixels[start : start + _BATCH].to(self.device, torch.float32), (side, side), self._loaded.resample
            )
            features.append(self._embedded((x - self._mean.view(3, 1, 1)) / self._std.view(3, 1, 1)))
        return torch.cat(features)

    @torch.inference_mode()
    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        """Text-aligned unit features (D, h, w) of each image, finer by shift-and-stitch than the tower's stride.

        ``path`` selects how the last layers are read (default: the setting ``dense``); see the towers for the choices.
        """
        maps = self._maps(images, lambda x: self._tower.encode_dense(x, path or self._use["dense"]))
        return [FeatureMap(F.normalize(m.values, dim=0), m.size) for m in maps]

    @torch.inference_mode()
    def encode_raw(self, images: Sequence[Image], path: DensePath | None = None) -> list[tuple[FeatureMap, Tensor]]:
        """What ``encode_dense`` makes unit vectors of, (D, h, w), and the class tokens of the same pass (S, D), per image.

        There is a class token for each of the moved copies, or none (S = 0) where a tower has none that meets text.
        """
        factor = self._use["shifts"]

        def see(same: list[Image], size: tuple[int, int]) -> list[tuple[FeatureMap, Tensor]]:
            moved = shift_images(self._prepared(same, size), self._tower.stride, factor)
            cells, tokens = self._tower.encode_dense_and_class(moved, path or self._use["dense"])
            tokens = tokens.float().reshape(len(tokens) // len(same), len(same), -1)
            maps = stitch_maps(cells, factor).float()
            return [(FeatureMap(m, i.size), tokens[:, k]) for k, (m, i) in enumerate(zip(maps, same, strict=True))]

        return map_by_size(images, self._dense_size, see)

    @torch.inference_mode()
    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The last block's projected keys (C, h, w) of each image, on the grid of ``dense``, not normalized; of a ViT only."""
        return self._maps(images, self._tower.extract_keys)

    @torch.inference_mode()
    def extract_values(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The last attention's values (C, h, w) of each image, on the grid of ``dense``, for ``align_values``."""
        return self._maps(images, self._tower.extract_values)

    @torch.inference_mode()
    def align_values(self, cells: Tensor) -> Tensor:
        """Values (C, h, w), or means of them, as unit features (D, h, w) that meet text."""
        return F.normalize(self._tower.align_values(cells.to(self.device, self.dtype)).float(), dim=0)

    @torch.inference_mode()
    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The output of conv4_x (C, h, w) of each image, at a stride of 16 px of the enlarged image; of a ResNet only."""

        def see(same: list[Image], size: tuple[int, int]) -> list[FeatureMap]:
            # one at a time: at these sizes a batch gains no speed and costs its memory
            return [FeatureMap(self._framed(self._pixels([i], size)), i.size) for i in same]

        return map_by_size(images, lambda i: fit_size(i.size, self._use["boundary_side"], CONV4_STRIDE), see)

    def _framed(self, x: Tensor) -> Tensor:
        """conv4_x (C, h, w) of one image, shifted and stitched; a ``margin`` of repeated cells keeps zero padding away."""
        edge, factor = self._use["margin"] * CONV4_STRIDE, self._use["boundary_shifts"]
        framed = F.pad(x, (edge, edge, edge, edge), mode="replicate") if edge else x
        features = self._tower.extract_conv4(framed, factor)[0].float()
        m = self._use["margin"] * factor
        return features[:, m : features.shape[1] - m, m : features.shape[2] - m]

    @torch.inference_mode()
    def encode_crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature per box (N, 4) px, (N, D): of each crop, or pooled from one forward pass by RoIAlign.

        Pooled, a ResNet sends the cells of each box through its attention pool; a ViT, which has none, averages the dense
        features in the box.
        """
        if not len(boxes):
            return torch.zeros(0, self.dimension, device=self.device)
        if not pooled:
            return self._squares([(image, box) for box in boxes])
        x = self._pixels([image], fit_size(image.size, self._use["dense_side"], self._tower.stride))
        regions = self._tower.encode_regions(x, torch.as_tensor(_within(boxes, image.size), device=self.device), image.size)
        return F.normalize(regions.float(), dim=-1)

    def _maps(self, images: Sequence[Image], read: Callable[[Tensor], Tensor]) -> list[FeatureMap]:
        """What ``read`` makes of the dense images, shifted and stitched, (C, h, w) float32 per image."""

        def see(same: list[Image], size: tuple[int, int]) -> list[FeatureMap]:
            factor = self._use["shifts"]
            maps = stitch_maps(read(shift_images(self._prepared(same, size), self._tower.stride, factor)), factor).float()
            return [FeatureMap(m, i.size) for m, i in zip(maps, same, strict=True)]

        return map_by_size(images, self._dense_size, see)

    def _dense_size(self, image: Image) -> tuple[int, int]:
        """The (h, w) that an image is brought to for dense features."""
        if "reading" in self._use:
            return fit_released(image.size)
        return fit_size(image.size, self._use["dense_side"], self._tower.stride)

    def _prepared(self, images: list[Image], size: tuple[int, int]) -> Tensor:
        """Images as the tower takes them for dense features."""
        if "reading" in self._use:
            return prepare_released(images, size, self._tower.stride, self.device)
        return self._pixels(images, size)

    def _squares(self, pieces: list[tuple[Image, npt.NDArray[np.float32] | None]]) -> Tensor:
        side = self._use["whole_side"]
        batches = (pieces[start : start + _BATCH] for start in range(0, len(pieces), _BATCH))
        return torch.cat(
            [
                self._embedded(self._pixels([i if b is None else crop_image(i, b) for i, b in some], (side, side)))
                for some in batches
            ]
        )

    def _embedded(self, x: Tensor) -> Tensor:
        return F.normalize(self._tower.encode_image(x).float(), dim=-1)

    def _pixels(self, images: list[Image], size: tuple[int, int]) -> Tensor:
        return torch.cat([preprocess_image(i, size, self._mean, self._std, self._loaded.resample) for i in images])


def _load(folder: Path, device: str, dtype: torch.dtype, use: Mapping[str, Any]) -> LoadedClip:
    """The model of a folder in the layout of open_clip or of transformers."""
    from annofree.features.transformers_clip import find_family, load_transformers_clip

    if find_family(folder) is not None:
        return load_transformers_clip(folder, device, dtype)
    loaded = load_clip(folder, device, dtype, use.get("quick_gelu"), use.get("positions"))
    if loaded.tokenizer.size != loaded.model.vocab_size:
        raise InputError(f"{folder} knows {loaded.model.vocab_size} tokens, but CLIP's tokenizer has {loaded.tokenizer.size}")
    return loaded


def _within(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Clip boxes (N, 4) to an image of ``size`` (H, W), at least one px of which each keeps."""
    limit = np.array(size[::-1], np.float32)
    low = boxes[:, :2].clip(0, limit - 1)
    return np.concatenate([low, boxes[:, 2:].clip(low + 1, limit)], 1)


def _middle(image: Image) -> Image:
    """The largest square in the middle of an image."""
    height, width = image.size
    side = min(image.size)
    top, left = (height - side) // 2, (width - side) // 2
    return Image(image.pixels[top : top + side, left : left + side], image.id)
