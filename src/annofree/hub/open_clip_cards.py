"""Cards for all pretrained weights of open_clip, by architecture and tag."""

from __future__ import annotations

from annofree.errors import InputError, MissingError, build_unknown_error
from annofree.hub.cards import Card

__all__ = ["find_open_clip_card"]

_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


def find_open_clip_card(spec: str) -> Card:
    """Build the card of ``open_clip:ARCH/TAG`` from open_clip's own table; nobody checked its license, so it is unknown.

    Raises InputError for an unknown architecture or tag, MissingError for weights without a safetensors file on the hub.
    """
    import open_clip.pretrained
    from open_clip import get_model_config, list_models

    arch, _, tag = spec.removeprefix("open_clip:").partition("/")
    config, tags = get_model_config(arch), open_clip.pretrained.list_pretrained_tags_by_model(arch)
    if config is None:
        raise build_unknown_error("architecture of open_clip", arch, list_models())
    if tag not in tags:
        raise build_unknown_error(f"tag of open_clip's {arch}", tag, tags)
    about = open_clip.pretrained.get_pretrained_cfg(arch, tag)
    hub = about.get("hf_hub", "")
    if not hub.endswith("/"):  # a file's name at its end is that of a pickle
        raise MissingError(f"open_clip has {arch}/{tag} as a pickle only, which may run code when loaded; choose another tag")
    perception = str(config["vision_cfg"].get("timm_model_name")).startswith("vit_pe_core_")
    foreign = ("timm_model_name" in config["vision_cfg"] and not perception) or "hf_model_name" in config["text_cfg"]
    if foreign or "multimodal_cfg" in config:
        raise InputError(f"expected an architecture with open_clip's own towers, or PE-Core, got {arch}")
    residual = isinstance(config["vision_cfg"].get("layers"), list)
    return Card(
        name=spec,
        kind="clip",
        family=f"open_clip {'ModifiedResNet' if residual else 'PerceptionEncoder' if perception else 'VisionTransformer'}",
        tier="S1",
        licence="unknown",
        code_licence="MIT",
        trained_on=f"image-text pairs ({tag})",
        world="photographs",
        files=dict.fromkeys(_FILES),
        use={"quick_gelu": bool(about.get("quick_gelu", False) or config.get("quick_gelu", False))}
        | ({} if residual else {"dense_side": 512}),
        hub=hub.rstrip("/"),
        revision="main",
        preprocessing={"side": config["vision_cfg"]["image_size"], "mean": about["mean"], "std": about["std"]},
        link="https://github.com/mlfoundations/open_clip",
    )
