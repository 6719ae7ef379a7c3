"""TIPSv2 and SigLIP 2 from folders in transformers' layout, as vision-language models whose inner maps can be read.

Their texts are lower-cased, cut and padded on the right to the length that they were trained with, as their papers say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.features.clip_network import DTYPES, LoadedClip
from annofree.features.towers.transformers_vit import SiglipTower, TipsTower
from annofree.features.transformers_folder import load_folder
from annofree.io.read_json import read_model_config
from annofree.ops.linear import replace_linear_layers

__all__ = ["PaddedTokenizer", "find_family", "load_transformers_clip"]


@dataclass(frozen=True)
class Family:
    """One architecture: its transformers class and tower, what its pixels and texts look like."""

    # the class in transformers that holds it
    model: str
    # its tower here
    tower: type[SiglipTower] | type[TipsTower]
    # mean and standard deviation of the pixels in 0 .. 1, the same for each color
    pixels: tuple[float, float]
    # weights that are not released, and keep their initial value
    unsaved: tuple[str, ...]
    # the token that ends a text, or None
    end: int | None


_FAMILIES = MappingProxyType(
    {
        "siglip": Family("SiglipModel", SiglipTower, (0.5, 0.5), (), 1),
        "tipsv2": Family("Tipsv2Model", TipsTower, (0.0, 1.0), ("temperature",), None),
    }
)
"""By the ``model_type`` of config.json; SigLIP 2 at a fixed size is of the type of SigLIP."""

_PAD = 0


class PaddedTokenizer:
    """Turns texts into (B, T) int64 token ids: lower case, cut to T, ended by ``end`` if there is one, padded by zeros.

    >>> from tokenizers.models import WordLevel
    >>> words = FastTokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "dog": 2}, unk_token="<eos>"))
    >>> PaddedTokenizer(words, 4, end=1)(["Dog"]).tolist()
    [[2, 1, 0, 0]]
    """

    def __init__(self, words: FastTokenizer, context_length: int, end: int | None = None) -> None:
        words.no_padding()
        words.no_truncation()
        self._words, self.context_length, self._end = words, context_length, end

    @property
    def size(self) -> int:
        """The vocabulary size."""
        return self._words.get_vocab_size()

    def is_unknown(self, text: str) -> bool:
        """Whether the text has a token outside the vocabulary: never, as bytes stand for what it does not hold."""
        return False

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, T) of B texts."""
        ended = [] if self._end is None else [self._end]
        out = torch.full((len(texts), self.context_length), _PAD, dtype=torch.long)
        for row, encoded in enumerate(self._words.encode_batch([t.lower() for t in texts], add_special_tokens=False)):
            ids = [*encoded.ids[: self.context_length - len(ended)], *ended]
            out[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return out


def find_family(folder: Path) -> Literal["siglip", "tipsv2"] | None:
    """Return which family a folder in transformers' layout is of, None for another layout.

    Raises InputError for a folder of transformers that is of no family that is known here.
    """
    if not (folder / "config.json").is_file() or (folder / "open_clip_config.json").is_file():
        return None
    kind = read_model_config(folder / "config.json").get("model_type")
    if kind not in _FAMILIES:
        raise build_unknown_error("architecture of a vision-language model", str(kind), _FAMILIES)
    return kind


def load_transformers_clip(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedClip:
    """Build the model of a folder and load its weights strictly; the image tower runs in ``dtype``, texts in float32.

    Raises MissingError without the files, InputError for pickled weights and for weights that do not fit.
    """
    if dtype not in DTYPES:
        raise InputError(f"expected a dtype among {', '.join(map(str, DTYPES))}, got {dtype}")
    kind = find_family(folder)
    if kind is None:
        raise MissingError(f"expected a model in transformers' layout in {folder}; there is no config.json")
    family = _FAMILIES[kind]
    model = load_folder(folder, family.model, unsaved=family.unsaved).to(device)
    replace_linear_layers(model)
    length = int(model.config.text_config.max_position_embeddings)
    tokenizer = PaddedTokenizer(_read_words(folder, kind), length, family.end)
    rows = int(model.config.text_config.vocab_size)
    if tokenizer.size > rows:
        raise InputError(f"{folder} knows {rows} tokens, but its tokenizer has {tokenizer.size}; fetch both from one place")
    model.vision_model.to(dtype)
    mean, std = (torch.full((3,), v, device=device) for v in family.pixels)
    tower = family.tower(model.vision_model)
    return LoadedClip(model, tower, mean, std, tokenizer, _text_encoder(model, kind), _scale(model, kind), "bilinear")


def _read_words(folder: Path, kind: str) -> FastTokenizer:
    """The tokenizer of ``tokenizer.json``, or of the SentencePiece model that TIPSv2 comes with."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            return FastTokenizer.from_file(str(path))
        if kind == "tipsv2" and (folder / "tokenizer.model").is_file():
            from transformers import Tipsv2Tokenizer

            words: FastTokenizer = Tipsv2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
            return words
    except Exception as problem:  # of a Rust library, which raises Exception itself
        raise InputError(f"expected a tokenizer in {folder}, but it cannot be read: {problem}; fetch the model again") from None
    raise MissingError(f"expected tokenizer.json in {folder}; it is not there; fetch the model again")


def _text_encoder(model: Any, kind: str) -> Callable[[Tensor], Tensor]:
    """Token ids (B, T) to text features (B, D): TIPSv2's over the tokens that are there, SigLIP's of the last position."""

    def encode(ids: Tensor) -> Tensor:
        mask = (ids != _PAD).long()
        mask[:, 0] = 1  # a text that says nothing is its padding
        longest = int(mask.sum(1).max()) if kind == "tipsv2" and len(ids) else ids.shape[1]  # what follows is not looked at
        seen = mask[:, :longest] if kind == "tipsv2" else None
        features: Tensor = model.text_model(input_ids=ids[:, :longest], attention_mask=seen).pooler_output
        return features

    return encode


def _scale(model: Any, kind: str) -> float:
    """What cosines are multiplied by before a softmax."""
    return 1.0 / float(model.temperature) if kind == "tipsv2" else float(model.logit_scale.exp())
