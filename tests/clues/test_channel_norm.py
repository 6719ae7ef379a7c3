"""Zip's slip of the norm beside loops, and that its official variant reads its clue so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.clues.channel_norm import divide_by_channels
from annofree.methods.zip import Zip
from annofree.protocols import DensePath
from annofree.structures import FeatureMap, Image
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.tolerances import assert_close


def divide_slowly(cells: Tensor, tokens: Tensor) -> Tensor:
    out = torch.zeros_like(cells)
    for channel, i, j in np.ndindex(*cells.shape):
        squares = sum(float(v) ** 2 for v in cells[channel].flatten()) + sum(float(v) ** 2 for v in tokens[:, channel])
        out[channel, i, j] = float(cells[channel, i, j]) / (squares**0.5 or 1)  # a silent channel stays silent
    return out


class Loud(FakeClip):
    """Cells of any length."""

    def encode_raw(self, images: Sequence[Image], path: DensePath | None = None) -> list[tuple[FeatureMap, Tensor]]:
        generator = torch.Generator().manual_seed(5)
        return [
            (FeatureMap(m.values * (1 + torch.rand(m.values.shape, generator=generator)), m.size), tokens * 7)
            for m, tokens in super().encode_raw(images, path)
        ]


@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_channels_are_divided_by_their_norm_over_all_tokens(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    cells, first = torch.randn(5, 3, 4, generator=generator), torch.randn(tokens, 5, generator=generator)
    found = divide_by_channels(FeatureMap(cells, (30, 40)), first)
    assert_close(found.values, divide_slowly(cells, first))
    assert found.size == (30, 40)


def test_a_channel_that_is_silent_stays_so() -> None:
    found = divide_by_channels(FeatureMap(torch.zeros(2, 2, 2), (4, 4)), torch.zeros(1, 2))
    assert (found.values == 0).all()


def test_the_official_variant_of_zip_reads_its_clue_so_and_the_others_do_not() -> None:
    image = Image(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8))
    (encoding,) = Zip(Loud(), FakeSam(), "official").encode([image])
    ((cells, tokens),) = Loud().encode_raw([image])
    assert encoding.clued is not None
    assert_close(encoding.clued.values, divide_slowly(cells.values, tokens))
    assert_close(encoding.tokens.values, torch.nn.functional.normalize(cells.values, dim=0))
    paper, official = Zip(Loud(), FakeSam(), "paper"), Zip(Loud(), FakeSam(), "official")
    assert paper.encode([image])[0].clued is None and paper.encoding_key != official.encoding_key
