"""CLIP with a ResNet, read from the inside: whole-image features, text-aligned cells, and conv4_x.

B images, D embedding, C channels, h w cells, N boxes.  The towers are open_clip's; nothing in them is changed.  Position
embeddings are resized on the way and never overwritten, so that no result depends on what was seen before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from open_clip.modified_resnet import AttentionPool2d
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from annofree.features.pictures import by_size, pixels_of
from annofree.features.tokens import Tokenizer
from annofree.features.weights import Card
from annofree.ops.grids import fitted_size, shifted, stitched
from annofree.structures import FeatureMap, Image, Vocabulary

__all__ = ["Clip", "attention_pool", "value_path"]

_STRIDE, _BOUNDARY_STRIDE = 32, 16  # of layer4 and of layer3 (conv4_x)


def attention_pool(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """Pool layer4 features (B, C, h, w) of any size into (B, D), as the tower does at its own size.

    The position embedding is resized bicubically to (h, w) for this call.
    """
    positions, (h, w) = pool.positional_embedding, x.shape[-2:]
    side = math.isqrt(len(positions) - 1)
    if (h, w) != (side, side):
        grid = positions[1:].T.reshape(1, -1, side, side)
        grid = F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
        positions = torch.cat([positions[:1], grid.flatten(2)[0].T])
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + positions[:, None].to(x.dtype)
    pooled, _ = F.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=pool.training,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return pooled[0]


def value_path(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """Send each cell of (B, C, h, w) through the value and output projections of the pool, (B, D, h, w).

    With all attention on itself, a cell would come out as this: the dense, text-aligned feature of MaskCLIP (Zip, Eq. 2).
    """
    value = F.conv2d(x, pool.v_proj.weight[..., None, None], pool.v_proj.bias)
    return F.conv2d(value, pool.c_proj.weight[..., None, None], pool.c_proj.bias)


class Clip:
    """A CLIP ResNet with its text tower, loaded from a model folder in open_clip's layout.

    The card's ``use`` says at which sizes: ``dense_side`` and ``boundary_side`` are short sides in px, ``whole_side`` the
    square for whole images and crops, ``shifts`` the moves a side that refine the dense grid; ``templates`` are the
    prompts of a name, ``neutral`` the texts that stand for nothing in particular.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.card = Card.read(folder)
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
        self._model = _frozen(CLIP(**config["model_cfg"]), folder / "open_clip_model.safetensors", device)
        self._visual = self._model.visual
        self._mean, self._std = (torch.tensor(config["preprocess_cfg"][k], device=device) for k in ("mean", "std"))
        vocabulary = folder / "vocabulary.json"
        known = json.loads(vocabulary.read_text(encoding="utf-8")) if vocabulary.exists() else None
        self._tokenizer = Tokenizer(config["model_cfg"]["text_cfg"]["context_length"], known)
        self._use: dict[str, Any] = dict(self.card.use)
        self._texts: dict[str, Tensor] = {}
        self.device = torch.device(device)

    @property
    def dimension(self) -> int:
        """D, the length of the features that meet text."""
        return int(self._visual.attnpool.c_proj.out_features)

    @property
    def settings(self) -> dict[str, Any]:
        """At which sizes and with which prompts this model is used."""
        return dict(self._use)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, licence, supervision tier and settings."""
        return self.card.provenance() | {"use": dict(self._use)}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """What the card warns of, and the words that the text tower has never read."""
        strangers = [w for words in vocabulary.synonyms for w in words if self._tokenizer.unknown(w)]
        said = [f"{self.card.name} has never read: {', '.join(strangers)}"] if strangers else []
        return ([self._use["warning"]] if "warning" in self._use else []) + said

    @torch.inference_mode()
    def words(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class (K, D): the mean over prompts, then over synonyms."""
        return torch.stack([F.normalize(torch.stack([self._text(w) for w in s]).mean(0), dim=0) for s in vocabulary.synonyms])

    @torch.inference_mode()
    def neutral(self) -> Tensor:
        """The text feature that says nothing in particular, (D): the mean over the card's neutral texts."""
        return torch.stack([self._text(w) for w in self._use["neutral"]]).mean(0)

    def presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """How likely each class is to be in a picture (K): a logistic of its evidence, fitted when the card was made."""
        *weights, offset = self._use["presence"]
        return torch.sigmoid(self.evidence(whole, tokens, words) @ words.new_tensor(weights) + offset)

    def evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        """What speaks for each class, (K, 2): the whole picture's cosine, and the mean clue of its best 5 % of cells."""
        clues = (words - self.neutral()) @ tokens.values.flatten(1)
        best = clues.topk(max(1, clues.shape[1] // 20), dim=1).values.mean(1)
        return torch.stack([words @ whole, best], 1)

    def _text(self, word: str) -> Tensor:
        if word not in self._texts:
            prompts = self._tokenizer([t.format(word) for t in self._use["templates"]]).to(self.device)
            features = F.normalize(self._model.encode_text(prompts).float(), dim=-1)
            self._texts[word] = F.normalize(features.mean(0), dim=0)
        return self._texts[word]

    @torch.inference_mode()
    def whole(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D), each squashed to a square so that nothing of it is lost."""
        return self._squares([(image, None) for image in images])

    @torch.inference_mode()
    def dense(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Text-aligned unit features (D, h, w) of each image, finer by shift-and-stitch than the stride of 32 px."""

        def see(same: list[Image], size: tuple[int, int]) -> list[FeatureMap]:
            factor = self._use["shifts"]
            x = shifted(self._pixels(same, size), _STRIDE, factor)
            tokens = stitched(value_path(self._visual.attnpool, self._visual.layer4(self._conv4(x))), factor)
            return [FeatureMap(t, i.size) for t, i in zip(F.normalize(tokens.float(), dim=1), same, strict=True)]

        return by_size(images, lambda i: fitted_size(i.size, self._use["dense_side"], _STRIDE), see)

    @torch.inference_mode()
    def boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The output of conv4_x (C, h, w) of each image, at a stride of 16 px of the enlarged image."""

        def see(same: list[Image], size: tuple[int, int]) -> list[FeatureMap]:
            # one at a time: at these sizes a batch gains no speed and costs its memory
            return [FeatureMap(self._framed(self._pixels([i], size)), i.size) for i in same]

        return by_size(images, lambda i: fitted_size(i.size, self._use["boundary_side"], _BOUNDARY_STRIDE), see)

    def _framed(self, x: Tensor) -> Tensor:
        """conv4_x (C, h, w) of one picture; the card's ``margin`` of repeated cells keeps the zero padding away from it."""
        m = self._use.get("margin", 0)
        edge = m * _BOUNDARY_STRIDE
        features = self._conv4(F.pad(x, (edge, edge, edge, edge), mode="replicate") if m else x)[0].float()
        return features[:, m : features.shape[1] - m, m : features.shape[2] - m]

    @torch.inference_mode()
    def crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        """One unit feature a box (N, 4) px, (N, D): of each crop by itself, or all pooled from one pass by RoIAlign."""
        if not len(boxes):
            return torch.zeros(0, self.dimension, device=self.device)
        if not pooled:
            return self._squares([(image, box) for box in boxes])
        size = fitted_size(image.size, self._use["dense_side"], _STRIDE)
        features = self._visual.layer4(self._conv4(self._pixels([image], size)))
        scale = [features.shape[-1] / image.size[1], features.shape[-2] / image.size[0]] * 2
        rois = torch.as_tensor(_within(boxes, image.size), device=self.device) * torch.tensor(scale, device=self.device)
        side = math.isqrt(len(self._visual.attnpool.positional_embedding) - 1)
        cells = roi_align(features, [rois.float()], side, aligned=True)
        return F.normalize(attention_pool(self._visual.attnpool, cells).float(), dim=-1)

    def _squares(self, pieces: list[tuple[Image, npt.NDArray[np.float32] | None]]) -> Tensor:
        side = self._use["whole_side"]
        features = []
        for start in range(0, len(pieces), 64):
            x = torch.cat(
                [pixels_of(_cropped(i, b), (side, side), self._mean, self._std) for i, b in pieces[start : start + 64]]
            )
            layer4 = self._visual.layer4(self._conv4(x))
            features.append(F.normalize(attention_pool(self._visual.attnpool, layer4).float(), dim=-1))
        return torch.cat(features)

    def _pixels(self, images: list[Image], size: tuple[int, int]) -> Tensor:
        return torch.cat([pixels_of(i, size, self._mean, self._std) for i in images])

    def _conv4(self, x: Tensor) -> Tensor:
        v = self._visual
        features: Tensor = v.layer3(v.layer2(v.layer1(v.stem(x.contiguous(memory_format=torch.channels_last)))))
        return features


def _within(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Clip boxes (N, 4) to a picture of ``size`` (H, W), at least one px of which each keeps."""
    limit = np.array(size[::-1], np.float32)
    low = boxes[:, :2].clip(0, limit - 1)
    return np.concatenate([low, boxes[:, 2:].clip(low + 1, limit)], 1)


def _cropped(image: Image, box: npt.NDArray[np.float32] | None) -> Image:
    if box is None:
        return image
    height, width = image.size
    x0, y0 = (int(np.clip(np.floor(v), 0, n - 1)) for v, n in zip(box[:2], (width, height), strict=True))
    x1, y1 = (int(np.clip(np.ceil(v), low + 1, n)) for v, low, n in zip(box[2:], (x0, y0), (width, height), strict=True))
    return Image(image.pixels[y0:y1, x0:x1], image.id)


def _frozen(model: nn.Module, weights: Path, device: str) -> Any:
    """Load weights strictly, in float32 and channels-last, for reading only."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
    model.load_state_dict(state, strict=True)
    return model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
