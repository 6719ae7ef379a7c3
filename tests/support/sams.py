"""Every SAM family, random and tiny but of the true structure, as transformers builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

__all__ = ["SAMS", "SIDE", "build_sam"]

SIDE, WIDTH = 128, 32


def _build_first(name: str) -> Any:
    """A SAM or SAM-HQ; ``name`` is the prefix of its classes."""
    vision = {
        "hidden_size": WIDTH,
        "output_channels": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 3,  # 8 is no multiple of it: windows are padded, as 14 pads 64
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": WIDTH // 2,
    }
    prompt = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16, "image_embedding_size": SIDE // 16}
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": WIDTH}
    if name == "SamHQ":
        decoder["vit_dim"] = WIDTH
    config = getattr(transformers, f"{name}Config")
    return getattr(transformers, f"{name}Model")(
        config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )


def _build_second(name: str, **more: Any) -> Any:
    """A SAM 2, its video form, or EdgeTAM."""
    backbone = transformers.Sam2HieraDetConfig(
        image_size=[SIDE, SIDE],
        hidden_size=16,
        embed_dim_per_stage=[16, 24, 32, 40],
        num_attention_heads_per_stage=[1, 2, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 8, 4],
        global_attention_blocks=[3],
    )
    if name.startswith("EdgeTam"):
        arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        tiny = {"embed_dim": [16, 24, 32, 40], "depth": [1, 1, 2, 1]}
        backbone = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=arguments | tiny)
    vision = getattr(transformers, "EdgeTamVisionConfig" if name.startswith("EdgeTam") else "Sam2VisionConfig")(
        backbone_config=backbone,
        backbone_channel_list=[40, 32, 24, 16],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=WIDTH,
    )
    prompt = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16}
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": WIDTH}
    config = getattr(transformers, f"{name}Config")
    return getattr(transformers, f"{name}Model")(
        config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder, **more)
    )


def _build_video(name: str, **more: Any) -> Any:
    memory = {
        "image_size": SIDE,
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": WIDTH,
        "memory_encoder_hidden_size": WIDTH,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": WIDTH,
        "memory_attention_rope_feat_sizes": [8, 8],
    }
    return _build_second(name, **memory | more)


_COMPRESSOR = {
    "perceiver_resampler_num_latents": 4,
    "perceiver_resampler_num_latents_2d": 4,
    "perceiver_resampler_hidden_size": 16,
    "perceiver_resampler_attention_head_dim": 16,
    "perceiver_resampler_mlp_intermediate_size": 32,
    "memory_attention_rope_k_sizes": [2, 2],
    "memory_attention_mlp_hidden_size": WIDTH,
}

SAMS: dict[str, Callable[[], Any]] = {
    "sam": lambda: _build_first("Sam"),
    "sam_hq": lambda: _build_first("SamHQ"),
    "sam2": lambda: _build_second("Sam2"),
    "sam2_video": lambda: _build_video("Sam2Video"),
    "edgetam": lambda: _build_second("EdgeTam"),
    "edgetam_video": lambda: _build_video("EdgeTamVideo", **_COMPRESSOR),
}
"""By the ``model_type`` of their configuration."""


def build_sam(kind: str) -> Any:
    """Build a family, every tensor random by one seed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = SAMS[kind]()
        for name, p in model.named_parameters():
            # norms stay near one, so that signals neither die nor explode
            p.copy_(torch.randn_like(p) * 0.15 + (1.0 if "norm" in name and p.ndim == 1 else 0.0))
    return model
