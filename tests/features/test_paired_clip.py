from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch

from annofree.errors import InputError
from annofree.features.paired_clip import PairedClip
from annofree.protocols import VisionLanguage
from annofree.structures import FeatureMap, Image, Vocabulary
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import draw_paper_scenes

WORDS = Vocabulary.of("car, apple, zeppelin")


class Edges(FakeClip):
    """Another CLIP, that is asked for nothing but boundaries."""

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": "edges", "tier": "S1"}

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        return [FeatureMap(torch.full((2, 3, 5), 7.0), i.size) for i in images]


@pytest.fixture(autouse=True)
def only_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("only boundaries are asked of this one")

    for name in (
        "encode_text",
        "encode_null_text",
        "score_presence",
        "encode_image",
        "encode_dense",
        "encode_crops",
        "encode_squares",
        "remarks",
    ):
        monkeypatch.setattr(Edges, name, asked)


def test_boundaries_are_the_others_and_all_else_is_not() -> None:
    clues, pair = FakeClip(), PairedClip(FakeClip(), Edges())
    images = [scene.image for scene in draw_paper_scenes()][:3]
    assert all(torch.equal(m.values, torch.full((2, 3, 5), 7.0)) for m in pair.encode_boundaries(images))
    assert [m.size for m in pair.encode_boundaries(images)] == [i.size for i in images]
    assert torch.equal(pair.encode_image(images), clues.encode_image(images))
    for ours, theirs in zip(pair.encode_dense(images, "value"), clues.encode_dense(images), strict=True):
        assert torch.equal(ours.values, theirs.values)
    words, tokens = pair.encode_text(WORDS), pair.encode_dense(images)[0]
    assert torch.equal(words, clues.encode_text(WORDS)) and torch.equal(pair.encode_null_text(), clues.encode_null_text())
    assert torch.equal(
        pair.score_presence(pair.encode_image(images)[0], tokens, words),
        clues.score_presence(clues.encode_image(images)[0], tokens, words),
    )
    boxes = np.array([[0, 0, 9, 9], [4, 4, 30, 20]], np.float32)
    assert torch.equal(pair.encode_crops(images[0], boxes, pooled=True), clues.encode_crops(images[0], boxes, pooled=True))
    squares = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pair.encode_squares(squares), clues.encode_squares(squares))
    assert pair.dimension == clues.dimension and pair.remarks(WORDS) == clues.remarks(WORDS)


def test_provenance_names_both() -> None:
    pair = PairedClip(FakeClip(), Edges())
    assert pair.provenance["name"] == "fake-clip" and pair.provenance["boundaries"] == {"name": "edges", "tier": "S1"}


def test_it_is_all_that_the_protocol_asks() -> None:
    asked = {n: v for n, v in vars(VisionLanguage).items() if not n.startswith("_")}
    for name, part in asked.items():
        assert hasattr(PairedClip, name)
        if callable(part):
            assert list(signature(part).parameters) == list(signature(getattr(PairedClip, name)).parameters)
    pair: VisionLanguage = PairedClip(FakeClip(), Edges())
    assert pair.encode_boundaries([Image(np.zeros((4, 4, 3), np.uint8))])


def test_values_are_those_of_the_clues() -> None:
    image = Image(np.full((16, 24, 3), (200, 30, 30), np.uint8))
    pair = PairedClip(FakeClip(), Edges())
    (found,), (expected,) = pair.extract_values([image]), FakeClip().extract_values([image])
    assert torch.equal(found.values, expected.values)
    assert torch.equal(pair.align_values(found.values), FakeClip().align_values(found.values))
    with pytest.raises(InputError, match="values of its last attention; this pair has none"):
        PairedClip(object(), Edges()).extract_values([image])  # type: ignore[arg-type]
