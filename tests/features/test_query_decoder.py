"""The decoder of queries against torch's own layers and a slow twin, and its positions against those of DETR."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

from annofree.errors import InputError
from annofree.features.query_decoder import DecoderLayer, QueryDecoder, compute_sine_positions
from annofree.testing.tolerances import assert_close

WIDTH, HEADS, FFN = 16, 4, 24


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unlike(decoder: QueryDecoder) -> QueryDecoder:
    """Give all weights random values, so that no two parts of it are alike."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return decoder.eval()


def attended(own: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one image, head by head and query by query."""
    (wq, wk, wv), (bq, bk, bv) = own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3)
    q, k, v, part = query @ wq.T + bq, key @ wk.T + bk, value @ wv.T + bv, WIDTH // HEADS
    rows = []
    for i in range(len(q)):
        heads = [slice(h * part, (h + 1) * part) for h in range(HEADS)]
        rows.append(torch.cat([((k[:, h] @ q[i, h]) / math.sqrt(part)).softmax(0) @ v[:, h] for h in heads]))
    return torch.stack(rows) @ own.out_proj.weight.T + own.out_proj.bias


def slow(decoder: QueryDecoder, queries: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
    x, seen = torch.zeros_like(queries), []
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        x = layer.norm1(x + attended(layer.self_attn, x + queries, x + queries, x))
        x = layer.norm2(x + attended(layer.multihead_attn, x + queries, memory + positions, memory))
        x = layer.norm3(x + layer.linear2(layer.linear1(x).clamp(min=0)))
        seen.append(decoder.norm(x))
    return torch.stack(seen)


def test_queries_read_as_the_slow_twin_does() -> None:
    decoder = unlike(QueryDecoder(WIDTH, 3, HEADS, FFN))
    queries, memory, positions = random(5, WIDTH), random(2, 12, WIDTH, seed=2), compute_sine_positions((3, 4), WIDTH)
    found = decoder(queries, memory, positions)
    assert found.shape == (2, 3, 5, WIDTH)
    for one, image in zip(found, memory, strict=True):
        assert_close(one, slow(decoder, queries, image, positions), depth="network")
    without = decoder(queries, memory)
    assert_close(without[0], slow(decoder, queries, memory[0], torch.zeros(12, WIDTH)), depth="network")
    assert not torch.allclose(without, found, atol=1e-2)


def test_a_layer_without_positions_is_torchs() -> None:
    theirs = nn.TransformerDecoderLayer(WIDTH, HEADS, FFN, dropout=0.0, batch_first=True, norm_first=False).eval()
    ours = DecoderLayer(WIDTH, HEADS, FFN).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, memory = random(2, 5, WIDTH), random(2, 9, WIDTH, seed=1)
    assert_close(ours(x, memory, memory, torch.zeros_like(x)), theirs(x, memory))


def test_layers_start_alike_and_are_not_shared() -> None:
    decoder = QueryDecoder(WIDTH, 3, HEADS, FFN)
    first, *others = (dict(layer.named_parameters()) for layer in decoder.layers)
    for other in others:
        assert all(torch.equal(first[name], other[name]) and first[name] is not other[name] for name in first)
    norms = [name for name, _ in decoder.named_parameters() if name.startswith("norm.")]
    assert norms == ["norm.weight", "norm.bias"]  # one, for all layers


@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (7, 2)])
def test_positions_are_those_of_detr(grid: tuple[int, int]) -> None:
    theirs = DetrSinePositionEmbedding(num_position_features=24, normalize=True)
    expected = theirs(torch.Size((1, 48, *grid)), "cpu", torch.float32)[0]
    assert_close(compute_sine_positions(grid, 48).T.view(48, *grid), expected)


def test_positions_tell_rows_first() -> None:
    cells = compute_sine_positions((4, 6), 32).view(4, 6, 32)
    assert torch.equal(cells[1, :, :16], cells[1, :1, :16].expand(6, -1))
    assert torch.equal(cells[:, 2, 16:], cells[:1, 2, 16:].expand(4, -1))
    assert F.pdist(cells.flatten(0, 1)).min() > 0.1


def test_odd_widths_are_refused() -> None:
    with pytest.raises(InputError, match="a multiple of 4, to tell y and x by sine and cosine, got 6"):
        compute_sine_positions((2, 2), 6)
    with pytest.raises(InputError, match="a decoder width that its 5 heads divide, got 16"):
        QueryDecoder(16, 1, 5, 8)
