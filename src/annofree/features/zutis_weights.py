"""Saving and loading of ZUTIS networks: a folder with a configuration, or the released weights alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from annofree.errors import InputError, MissingError
from annofree.features.zutis_network import ZutisConfig, ZutisNetwork, fill_maps
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.tensors import read_tensors, refuse_nan

__all__ = ["CONFIG", "WEIGHTS", "infer_config", "load_zutis", "save_zutis"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_HEAD_WIDTH = 64  # of every CLIP ViT by OpenAI
_HEADS = 8  # of the released decoders; the weights do not tell


def save_zutis(network: ZutisNetwork, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write ``config.json`` and ``model.safetensors`` in ``dtype`` into a folder, each atomically."""
    make_folder(folder)
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    write_atomic(folder / WEIGHTS, lambda temporary: save_file(state, temporary))
    write_json(folder / CONFIG, asdict(network.config), indent=2)


def load_zutis(place: Path, device: str = "cpu", *, card: Card | None = None) -> ZutisNetwork:
    """Load a network for use: from a folder, or from released weights alone (.pt, .pth or .safetensors).

    A folder holds ``model.safetensors`` and, but for released weights, ``config.json``.  Released weights carry no
    configuration: sizes are read off their shapes.  Pickles are read without running code; ``save_zutis`` makes safetensors
    of them.  ``card`` describes the weights, if the folder has no card.json.

    Raises MissingError if there are no files, InputError for weights that do not match.
    """
    path = place / WEIGHTS if place.is_dir() else place
    state = _state(path)
    config = _config(path.parent / CONFIG, state) if place.is_dir() else infer_config(state, path)
    with torch.device("meta"):
        network = ZutisNetwork(config)
    fill_maps(network.to_empty(device="cpu"), state, str(path))
    known = card or (Card.read(path.parent) if place.is_dir() and (place / "card.json").is_file() else None)
    network.provenance = known.to_provenance() if known else {"name": place.name, "sha256": {path.name: hash_file(path)}}
    network.provenance["trained_on"] = list(config.names)
    network.side = int(known.use.get("side", 0)) if known else 0
    return network.eval().requires_grad_(False).to(device)


def infer_config(state: Mapping[str, Tensor], path: Path) -> ZutisConfig:
    """Infer the configuration from weights with OpenAI's encoder and a decoder of 8 heads.

    Raises InputError if the required weights are missing.
    """
    try:
        width, _, patch, _ = state["encoder.conv1.weight"].shape
        side = round((len(state["encoder.positional_embedding"]) - 1) ** 0.5)
        return ZutisConfig(
            width=width,
            layers=_count(state, "encoder.transformer.resblocks."),
            heads=max(1, width // _HEAD_WIDTH),
            patch=patch,
            image_size=side * patch,
            embed_dim=state["encoder.proj"].shape[1],
            queries=len(state["query_embed.weight"]),
            decoder_layers=_count(state, "decoder.layers."),
            decoder_heads=_HEADS,
            decoder_ffn=len(state["decoder.layers.0.linear1.weight"]),
            mlp_hidden=len(state["ffn1.layers.0.weight"]),
        )
    except (KeyError, ValueError) as problem:
        raise InputError(f"expected the weights of a ZUTIS network in {path}, but its sizes do not show: {problem}") from None


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def _config(path: Path, state: Mapping[str, Tensor]) -> ZutisConfig:
    if not path.is_file():
        return infer_config(state, path.with_name(WEIGHTS))
    try:
        return ZutisConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise InputError(f"expected the configuration of a ZUTIS network in {path}: {problem}") from None


def _state(path: Path) -> dict[str, Tensor]:
    """The weights of a file, by the names that the network has."""
    if not path.is_file():
        raise MissingError(f"expected the weights of a ZUTIS network at {path}; there are none, train or fetch it first")
    held = read_tensors(path)
    while isinstance(held, Mapping) and len(held) == 1 and isinstance(inner := next(iter(held.values())), Mapping):
        held = inner
    if not isinstance(held, Mapping) or not all(isinstance(v, Tensor) for v in held.values()):
        raise InputError(f"expected a state dict of tensors in {path}, got something else")
    state = dict(held)
    refuse_nan(state, path)
    if "query_embed" in state:  # the queries as a bare parameter
        state["query_embed.weight"] = state.pop("query_embed")
    return state
