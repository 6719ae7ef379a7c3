"""GroupViT (Xu et al., CVPR 2022): a transformer whose tokens are merged into groups, and the groups meet text.

    pixels -> patches -> 64 groups of patches -> 8 groups of those -> one feature a group, and a softer or firmer place for each

B images, G groups, D embedding, N patches, h w cells, K classes.  The modules are transformers'; nothing in them is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.prompts import TextFeatures, compute_fingerprint, find_text_cache
from annofree.features.tokenizer import Tokenizer
from annofree.features.transformers_folder import load_folder
from annofree.hub.cards import Card
from annofree.structures import Vocabulary

__all__ = ["GroupVit"]

_PROMPTS = "photo"  # the one that it was evaluated with
_UNSAVED = ("text_model.embeddings.position_ids",)  # 0, 1, 2 ...: in older files alone
_MOST_SCALE = 100.0


class GroupVit:
    """A GroupViT from a folder in transformers' layout; without ``config.json`` it has the sizes of both releases.

    Raises MissingError without weights, InputError for pickles, and for weights that do not fit.
    """

    def __init__(self, folder: Path, device: str = "cpu", *, card: Card | None = None) -> None:
        self.card = card or Card.read(folder)
        self.device = torch.device(device)
        self._model = load_folder(folder, "GroupViTModel", "eager", _UNSAVED, _default_config(folder)).to(self.device)
        config = self._model.config
        self.dimension, self.patch = int(config.projection_dim), int(config.vision_config.patch_size)
        self._tokenizer = Tokenizer(int(config.text_config.max_position_embeddings))
        if self._tokenizer.size > config.text_config.vocab_size:
            raise InputError(f"{folder} knows {config.text_config.vocab_size} tokens, but CLIP has {self._tokenizer.size}")
        known = bool(self.card.files) and all(self.card.files.values())
        key = compute_fingerprint(self.card.files) if known else self.card.name
        self._texts = TextFeatures(self._encode_texts, key, _PROMPTS, cache=find_text_cache() if known else None)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and supervision tier, and the prompts of a name."""
        return self.card.to_provenance() | {"templates": _PROMPTS}

    @property
    def scale(self) -> float:
        """What cosines are multiplied by: 100 at most, as released."""
        return min(float(self._model.logit_scale.exp()), _MOST_SCALE)

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """Nothing: its vocabulary is CLIP's own."""
        return []

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        return self._texts.encode_classes(vocabulary).to(self.device)

    @torch.inference_mode()
    def group(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Group normalized pixels (B, 3, H, W) of whole patches, any number of them; positions are interpolated.

        Returns unit features of groups (B, G, D) and of their mean (B, D), and how much each cell belongs to each group,
        (B, G, h, w): the shares of both stages multiplied, 1 in sum over the groups.
        """
        vision = self._model.vision_model
        tokens = vision.embeddings(x.to(self.device), interpolate_pos_encoding=True)
        seen = vision.encoder(tokens, output_hidden_states=False, output_attentions=True, return_dict=True)
        groups = vision.layernorm(seen.last_hidden_state)
        place = _multiply_shares([shares for shares in seen.attentions if shares is not None])
        grid = tuple(n // self.patch for n in x.shape[-2:])
        return self._project(groups), self._project(groups.mean(1)), place.view(*place.shape[:2], *grid)

    def _project(self, features: Tensor) -> Tensor:
        """Features (..., C) into the space of texts, unit (..., D)."""
        flat: Tensor = self._model.visual_projection(features.flatten(0, -2))
        return F.normalize(flat, dim=-1).view(*features.shape[:-1], -1)

    @torch.inference_mode()
    def _encode_texts(self, texts: list[str]) -> Tensor:
        ids = self._tokenizer(texts).to(self.device)
        features: Tensor = self._model.text_projection(self._model.text_model(input_ids=ids).pooler_output)
        return features


def _default_config(folder: Path) -> Any:
    if (folder / "config.json").is_file():
        return None
    from transformers import GroupViTConfig

    return GroupViTConfig()


def _multiply_shares(stages: list[Tensor]) -> Tensor:
    """The share of each patch in the last groups, (B, G, N), from those of patches in groups, of groups in fewer ones, ..."""
    place, *later = stages
    for shares in later:
        place = shares @ place
    return place
