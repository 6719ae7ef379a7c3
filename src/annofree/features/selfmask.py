"""SelfMask's weights read from files, and its masks of images: the most salient thing of each, whatever it is.

Q queries, h w patches, 2h 2w cells of a mask, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.preprocessing import map_by_size, preprocess_image
from annofree.features.selfmask_network import SelfMaskConfig, SelfMaskNetwork
from annofree.hub.cards import Card, hash_file
from annofree.io.atomic import write_json
from annofree.io.read_json import read_model_config
from annofree.io.tensors import refuse_nan, write_half
from annofree.ops.grids import fit_size, resize_maps
from annofree.structures import Image

__all__ = ["Salient", "SelfMask", "load_selfmask", "save_selfmask"]


def load_selfmask(path: Path) -> SelfMaskNetwork:
    """Read a network in eval mode, from a folder or from one file of weights: safetensors, or a state dict of torch.

    A folder holds ``model.safetensors`` (or one .pt) and ``config.json``; without that it is the released network, whose number
    of queries is inferred from the weights.  Names: ``encoder.`` with DINO's names, ``decoder.layers.N.`` and ``decoder.norm.``
    with those of torch's TransformerDecoder, ``query_embed`` or ``query_embed.weight``, and three linear layers under any one
    other name (``ffn.layers.N.`` as released), in the order of their names, which are the objectness.  Loading is strict.

    Raises MissingError without weights, InputError for those of another network.
    """
    weights, config = _weights(path), path / "config.json"
    state = _named(_tensors(weights), weights)
    settings = _config(config) if config.is_file() else SelfMaskConfig(queries=len(state["query_embed"]))
    network = SelfMaskNetwork(settings)
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        why = " ".join(str(problem).split())[:300]
        raise InputError(f"expected the weights of a SelfMask in {weights}, got others: {why}") from None
    return network.eval()


def save_selfmask(network: SelfMaskNetwork, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` (fp16), as ``load_selfmask`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", asdict(network.config), indent=2)
    write_half(folder / "model.safetensors", network.state_dict())


def _weights(path: Path) -> Path:
    if path.is_file():
        return path
    safe, others = path / "model.safetensors", sorted(path.glob("*.pt"))
    if not safe.is_file() and len(others) != 1:
        raise MissingError(f"expected a SelfMask at {path}: a file of weights, or a folder with model.safetensors or one .pt")
    return safe if safe.is_file() else others[0]


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, UnpicklingError) as problem:
        raise InputError(f"expected the weights of a SelfMask in {path}, but they cannot be read: {problem}") from None
    while isinstance(found, dict) and len(found) == 1 and isinstance(next(iter(found.values())), dict):
        (found,) = found.values()
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"expected tensors by name in {path}, got something else")
    refuse_nan(found, path)
    return {name: value.float() for name, value in found.items()}


def _named(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Map the names of a released file to ours: the queries, and the layers of the objectness."""
    ours = {k: v for k, v in state.items() if k.startswith(("encoder.", "decoder."))}
    queries = [k for k in state if k in ("query_embed", "query_embed.weight")]
    rest = sorted(k for k in state if k not in ours and k not in queries)
    layers = list(dict.fromkeys(k.rpartition(".")[0] for k in rest))
    if len(queries) != 1 or len(layers) != 3:
        got = ", ".join(list(state)[:4]) or "nothing"
        raise InputError(f"expected query_embed, and three linear layers that give the objectness, in {path}, got {got} ...")
    ours["query_embed"] = state[queries[0]]
    for number, layer in zip((0, 2, 4), layers, strict=True):
        ours |= {f"objectness.{number}.{k.rpartition('.')[2]}": state[k] for k in rest if k.rpartition(".")[0] == layer}
    return ours


def _config(path: Path) -> SelfMaskConfig:
    said = read_model_config(path)
    unknown = sorted(said.keys() - {f.name for f in fields(SelfMaskConfig)})
    if unknown:
        raise InputError(f"expected the configuration of a SelfMask in {path}, but it says {', '.join(unknown)}")
    try:
        config = SelfMaskConfig(**said)
        return SelfMaskConfig(**said | {"mean": tuple(config.mean), "std": tuple(config.std)})
    except TypeError as problem:
        raise InputError(f"expected the configuration of a SelfMask in {path}, but it is not one: {problem}") from None


@dataclass(frozen=True, eq=False)
class Salient:
    """The most salient thing of an image: its ``soft`` mask (H, W) and ``objectness``, both in 0 .. 1.

    ``all_soft`` (Q, H, W) and ``all_objectness`` (Q) are those of all queries, if requested.
    """

    soft: Tensor
    objectness: float
    all_soft: Tensor | None = None
    all_objectness: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """Where the soft mask is above 0.5, (H, W) bool."""
        return self.soft > 0.5


class SelfMask:
    """SelfMask over images: the mask of the query with the largest objectness of the last layer.

    ``side`` resizes images bicubically to that short side, in whole patches; None keeps their size and pads zeros after
    normalizing, at the bottom and the right, as released (ZUTIS took 512).  A card's ``use`` may set it.  Raises what
    ``load_selfmask`` raises.
    """

    def __init__(self, path: Path, device: str = "cpu", *, card: Card | None = None, side: int | None = None) -> None:
        self.path, self.device = path, torch.device(device)
        if card is None and (path / "card.json").is_file():
            card = Card.read(path)
        self.card = card
        self.network = load_selfmask(path).to(self.device).requires_grad_(False)
        self.side: int | None = side or (card.use.get("side") if card else None)
        config = self.network.config
        self._mean, self._std = (torch.tensor(v, device=self.device) for v in (config.mean, config.std))

    @property
    def provenance(self) -> dict[str, Any]:
        """The weights with their hash and, by their card, license and tier; how images are resized."""
        if self.card is not None:
            weights = self.card.to_provenance()
        else:
            file = _weights(self.path)
            weights = {"name": file.name, "licence": "unknown", "tier": "unknown", "sha256": {file.name: hash_file(file)}}
        return {"objectness": "selfmask", "weights": weights, "side": self.side}

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        """How likely each pixel belongs to the most salient thing, (H, W) in 0 .. 1 per image."""
        return [found.soft for found in self.predict_masks(images)]

    @torch.inference_mode()
    def predict_masks(self, images: Sequence[Image], *, every: bool = False) -> list[Salient]:
        """Find the most salient object of each image; with ``every``, return the masks of all queries too."""

        def see(same: list[Image], size: tuple[int, int]) -> list[Salient]:
            found = self.network(torch.cat([self._pixels(i, size) for i in same]))
            pairs = zip(same, found.masks[:, -1], found.objectness[:, -1], strict=True)
            return [self._salient(i, m, o, size, every) for i, m, o in pairs]

        return map_by_size(images, self._size, see)

    def _salient(self, image: Image, masks: Tensor, objectness: Tensor, size: tuple[int, int], every: bool) -> Salient:
        best = int(objectness.argmax())
        drawn = self._drawn(masks if every else masks[best : best + 1], image, size)
        if every:
            return Salient(drawn[best], float(objectness[best]), drawn, objectness)
        return Salient(drawn[0], float(objectness[best]))

    def _drawn(self, masks: Tensor, image: Image, size: tuple[int, int]) -> Tensor:
        """Enlarge probabilities (Q, 2h, 2w) to the pixels of an image, (Q, H, W), without its padding."""
        full = resize_maps(masks, image.size if self.side else size)
        return full[:, : image.size[0], : image.size[1]]

    def _size(self, image: Image) -> tuple[int, int]:
        patch = self.network.patch
        if self.side is not None:
            return fit_size(image.size, self.side, patch)
        height, width = (-(-n // patch) * patch for n in image.size)
        return height, width

    def _pixels(self, image: Image, size: tuple[int, int]) -> Tensor:
        x = preprocess_image(image, image.size if self.side is None else size, self._mean, self._std)
        return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))
