"""What a command refuses, its call of Python refuses too, before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from annofree.datasets.emoji.draw import draw_emoji_world
from annofree.errors import InputError
from annofree.experiments.reproduce import reproduce
from annofree.pipelines.build_index import build_index
from annofree.pipelines.mask_archive import mask_archive
from annofree.pipelines.report import report
from annofree.pipelines.retrieve import retrieve
from annofree.pipelines.review import review
from annofree.pipelines.segment import segment


@pytest.mark.parametrize(
    ("call", "given", "wrong"),
    [
        (draw_emoji_world, ("out",), {"scenes": 0}),
        (draw_emoji_world, ("out",), {"side": 3}),
        (draw_emoji_world, ("out",), {"held_out": 2}),
        (reproduce, ("recipe",), {"limit": 0}),
        (build_index, ("photos", "out"), {"batch": 0}),
        (build_index, ("photos", "out"), {"threads": 0}),
        (retrieve, ("index", "out"), {"k": 0}),
        (retrieve, ("index", "out"), {"sheet": -1}),
        (mask_archive, ("archive",), {"batch_size": 0}),
        (mask_archive, ("archive",), {"sheet": -1}),
        (report, ("run",), {"shown": -1}),
        (report, ("run",), {"crops": 0}),
        (review, ("run",), {"worst": 0}),
        (review, ("run",), {"worst": 1.5}),
        (review, ("run",), {"worst": float("inf")}),
        (review, ("run",), {"worst": 10**30}),
        (review, ("run",), {"min_score": float("nan")}),
        (segment, ("photos", "dog"), {"min_score": float("nan")}),
        (segment, ("photos", "dog"), {"limit": 2.5}),
        (segment, ("photos", "dog"), {"batch_size": 2**31}),
        (retrieve, ("index", "out"), {"min_score": float("inf")}),
        (retrieve, ("index", "out"), {"k": "9"}),
        (build_index, ("photos", "out"), {"shard": 10**30}),
    ],
)
def test_numbers_are_checked_first(call: Callable[..., Any], given: tuple[str, ...], wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(
        InputError, match=rf"expected {name} (as a whole number )?(of at least|of at most|from) .*, got {value!r}"
    ):
        call(*given, **wrong)


def test_words_are_checked_first() -> None:
    with pytest.raises(InputError, match="unknown source of masks 'me'"):
        mask_archive("archive", by="me")
    with pytest.raises(InputError, match="unknown refinement 'crf'"):
        mask_archive("archive", refine="crf")
    with pytest.raises(InputError, match="unknown way to make a square 'cut'"):
        build_index("photos", "out", whole="cut")
    with pytest.raises(InputError, match="unknown retrieval method 'fais'; did you mean 'faiss'"):
        retrieve("index", "out", classes="dog", method="fais")
