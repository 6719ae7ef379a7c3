"""Distractors are common names, less those that mean what is asked for."""

from __future__ import annotations

import pytest

from annofree.clues.distractors import Distractors
from annofree.errors import InputError
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip

LISTED = Distractors(
    ("dog", "puppy", "animal", "cat", "cup", "mug", "glass"), related=(("dog", "puppy", "animal"), ("cup", "mug"))
)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("dog", ("cat", "cup", "mug", "glass")),  # its kinds, and what it is a kind of
        ("Puppy", ("cat", "cup", "mug", "glass")),
        ("cat", ("dog", "puppy", "animal", "cup", "mug", "glass")),
        ("mug, cat", ("dog", "puppy", "animal", "glass")),
        ("pet: cat | dog", ("cup", "mug", "glass")),  # other words for a name count, too
        ("zebra", LISTED.names),
    ],
)
def test_names_asked_for_and_their_kin_are_none(asked: str, left: tuple[str, ...]) -> None:
    assert LISTED.chosen(Vocabulary.of(asked), FakeClip()) == left


def test_text_features_tell_who_is_near() -> None:
    near = Distractors(("apple", "car"), nearest=0.7)
    assert near.chosen(Vocabulary.of("fruit: apple"), FakeClip()) == ("car",)
    assert near.chosen(Vocabulary.of("zeppelin"), FakeClip()) == ("apple", "car")
    # a name whose feature lies between two words is near to both: cosine of 0.71
    assert near.chosen(Vocabulary.of("thing: ball | car"), FakeClip()) == ("apple",)
    assert Distractors().chosen(Vocabulary.of("dog"), FakeClip()) == ()


def test_a_nearness_beyond_one_is_refused() -> None:
    with pytest.raises(InputError, match="nearness from 0 to 1"):
        Distractors(nearest=1.5)
