"""Configurations of released models at their true sizes, which random weights can fill: what a run costs without a download."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from annofree.errors import build_unknown_error

__all__ = ["build_hiera", "build_sam_config", "build_tips_config", "train_byte_tokenizer"]


def build_sam_config(name: str) -> Any:
    """The transformers configuration of sam-b, sam2.1-tiny or sam2.1-large; raises InputError for another.

    >>> build_sam_config("sam-b").vision_config.hidden_size
    768
    """
    from transformers import Sam2Config, SamConfig

    if name == "sam-b":
        return SamConfig()
    if name == "sam2.1-tiny":
        return Sam2Config()
    if name == "sam2.1-large":
        return Sam2Config(
            vision_config=build_hiera([144, 288, 576, 1152], [2, 4, 8, 16], [2, 6, 36, 4], [8, 4, 16, 8], [23, 33, 43], 1024)
        )
    raise build_unknown_error("SAM of a known size", name, ("sam-b", "sam2.1-tiny", "sam2.1-large"))


def build_hiera(
    widths: list[int], heads: list[int], blocks: list[int], windows: list[int], everywhere: list[int], side: int
) -> dict[str, Any]:
    """SAM 2's image encoder: per stage the width, heads, blocks and window, and the blocks that attend everywhere."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [side, side],
        "hidden_size": widths[0],
        "num_attention_heads": heads[0],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": heads,
        "blocks_per_stage": blocks,
        "window_size_per_stage": windows,
        "global_attention_blocks": everywhere,
    }
    grids = [[side // stride, side // stride] for stride in (4, 8, 16)]
    return {"backbone_config": backbone, "backbone_channel_list": widths[::-1], "backbone_feature_sizes": grids}


_TIPS: Mapping[str, tuple[int, int, int, int, int]] = MappingProxyType(
    {
        "tipsv2-b-14": (768, 12, 12, 3072, 12),
        "tipsv2-l-14": (1024, 24, 16, 4096, 12),
        "tipsv2-so400m-14": (1152, 27, 16, 4304, 27),
    }
)
"""Width, layers of the image tower, heads, width of the MLPs, layers of the text tower."""


def build_tips_config(name: str, *, narrow: bool = False) -> Any:
    """The transformers configuration of a TIPSv2 by the name of its card, or a ``narrow`` one; raises InputError for another.

    >>> build_tips_config("tipsv2-l-14").text_config.hidden_size
    1024
    """
    from transformers import Tipsv2Config

    if name not in _TIPS:
        raise build_unknown_error("TIPSv2", name, _TIPS)
    width, layers, heads, mlp, depth = (32, 2, 2, 64, 1) if narrow else _TIPS[name]
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_ratio": mlp / width}
    text = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": mlp}
    return Tipsv2Config(vision_config=vision, text_config=text)


def train_byte_tokenizer() -> bytes:
    """A SentencePiece model of bytes and hardly a word, as ``tokenizer.model`` of a TIPSv2."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a thing"] * 9),
        model_writer=written,
        vocab_size=280,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()
