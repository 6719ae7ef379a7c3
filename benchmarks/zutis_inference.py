"""ZUTIS at true size: images a second, for the network and for the names, and what the cheaper order of its maps saves.

    uv run python benchmarks/zutis_inference.py --threads 2
    uv run python benchmarks/zutis_inference.py --patch 32 --device cuda --pictures 64

The weights are random, so the proposals, too, are drawn at random, as smooth maps: that many overlap is the worst case of their
suppression.  The paper's order makes all tokens twice as fine and then projects them; here they are projected first, which is
the same but for rounding, and is checked to be.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.features.query_decoder import compute_sine_positions
from annofree.features.towers.vit import VitTower
from annofree.features.zutis_network import ZutisConfig, ZutisNetwork, normalize_map
from annofree.methods.zutis import Zutis, ZutisEncoding
from annofree.structures import Image, Vocabulary
from annofree.testing.fakes import FakeClip
from annofree.testing.timing import Spread, measure_seconds
from annofree.testing.tolerances import assert_close

NARROW: dict[str, Any] = {
    "width": 32,
    "layers": 1,
    "heads": 2,
    "embed_dim": 16,
    "decoder_layers": 1,
    "decoder_heads": 2,
    "decoder_ffn": 32,
}


class RandomWords(FakeClip):
    """Text at random: what the names cost does not depend on what they mean."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """That of the network."""
        return self._dimension

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit vector a name."""
        generator = torch.Generator().manual_seed(0)
        return F.normalize(torch.randn(len(vocabulary), self._dimension, generator=generator), dim=1)


def paper_order(network: ZutisNetwork, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features and masks of the last layer, with every map at full size from the start."""
    tokens = VitTower(network.encoder, "bicubic+0.1-always").extract_patches(pixels)
    fine = F.interpolate(tokens, scale_factor=2, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    units, _ = normalize_map((fine @ network.encoder.proj).permute(0, 3, 1, 2))
    memory, grid = network.ffn1(fine).flatten(1, 2), (fine.shape[1], fine.shape[2])
    places = compute_sine_positions(grid, network.config.width, memory.device)
    queries = F.normalize(network.ffn2(network.decoder(network.query_embed.weight, memory, places)), dim=-1)
    masks = torch.einsum("blqc,bnc->blqn", queries, memory).sigmoid()[:, -1]
    return units, masks.view(*masks.shape[:2], *grid)


def typical(work: Callable[[], Any], device: str, repeats: int) -> float:
    """The median seconds of some work, after once for warmth."""
    return Spread.of([measure_seconds(work, device) for _ in range(repeats + 1)][1:]).median


def smooth(encoding: ZutisEncoding) -> ZutisEncoding:
    """The encoding with random smooth maps for proposals."""
    coarse = torch.rand(1, len(encoding.masks), 6, 8, generator=torch.Generator().manual_seed(0)).to(encoding.masks)
    size = (encoding.masks.shape[1], encoding.masks.shape[2])
    return replace(encoding, masks=F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0])


@torch.inference_mode()
def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds an image of each part; raises SystemExit where the two orders differ."""
    torch.manual_seed(0)
    config = ZutisConfig(patch=asked.patch, queries=asked.queries, **(NARROW if asked.small else {}))
    network = ZutisNetwork(config).eval().requires_grad_(False).to(asked.device)
    method = Zutis(network, RandomWords(config.embed_dim), "official")
    rng = np.random.default_rng(0)
    images = [Image(rng.integers(0, 256, (*asked.size, 3), dtype=np.uint8), str(i)) for i in range(asked.pictures)]
    names = Vocabulary.of([f"name {i}" for i in range(asked.names)])
    pixels = torch.randn(1, 3, *asked.size).to(asked.device)
    ours, theirs = network(pixels, every_layer=False), paper_order(network, pixels)
    apart = max(float((ours.features - theirs[0]).abs().max()), float((ours.masks[:, 0] - theirs[1]).abs().max()))
    try:
        assert_close(ours.features, theirs[0], depth="network")
        assert_close(ours.masks[:, 0], theirs[1], depth="network")
    except AssertionError as problem:
        raise SystemExit(f"expected both orders to give the same, but {problem}") from None
    encoding = smooth(method.encode(images[:1])[0])
    parts: dict[str, tuple[Callable[[], Any], int]] = {
        "encode": (lambda: method.encode(images), len(images)),
        "instances": (lambda: method.instances(encoding, names), 1),
        "semantic": (lambda: method.semantic(encoding, names), 1),
        "network": (lambda: network(pixels, every_layer=False), 1),
        "network, paper's order": (lambda: paper_order(network, pixels), 1),
    }
    times = {part: typical(work, asked.device, asked.repeats) / count for part, (work, count) in parts.items()}
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[1]}
    return {"seconds_a_picture": times, "apart": apart, "parameters": sum(map(torch.numel, network.parameters()))} | machine


def report(found: dict[str, Any], asked: argparse.Namespace) -> str:
    """Tell the numbers in words."""
    height, width = asked.size
    head = f"ZUTIS, patches of {asked.patch} px, {found['parameters']:,} parameters, {height} x {width} px, {asked.names} names"
    rows = [f"{part:24s}{s:9.3f} s an image{1 / s:9.1f} a second" for part, s in found["seconds_a_picture"].items()]
    tail = f"{found['threads']} threads on {found['cores']} cores, {asked.device}, load {found['load']:.1f}"
    return "\n".join([head, *rows, f"the two orders differ by at most {found['apart']:.0e}", tail])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Images a second of ZUTIS at true size, with random weights.")
    parser.add_argument("--patch", type=int, default=16, choices=[16, 32])
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("H", "W"))
    parser.add_argument("--names", type=int, default=80)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=4, help="encoded at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--small", action="store_true", help="a narrow network, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    asked.size = (asked.size[0], asked.size[1])
    if asked.threads:
        torch.set_num_threads(asked.threads)
    found = measured(asked)
    print(report(found, asked))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
