"""Distractors are common names, less those that mean what is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from annofree.clues.distractors import Distractors, Taxonomy
from annofree.errors import InputError
from annofree.methods.policies import parse_distractors, resolve_policy
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip

PETS = Taxonomy(kinds={"animal": ("dog", "cat"), "dog": ("puppy",)}, synonyms={"cup": ("mug",)}, parts={"dog": ("paw",)})
LISTED = Distractors(("dog", "puppy", "animal", "cat", "cup", "glass", "paw"), PETS)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("dog", ("cat", "cup", "glass", "paw")),  # its kinds, and what it is a kind of; a part of it still competes
        ("Puppy", ("cat", "cup", "glass", "paw")),
        ("cat", ("dog", "puppy", "cup", "glass", "paw")),
        ("mug, cat", ("dog", "puppy", "glass", "paw")),
        ("pet: cat | dog", ("cup", "glass", "paw")),  # other words for a name count, too
        ("paw", ("animal", "cat", "cup", "glass")),  # what it is a part of
        ("zebra", LISTED.names),
    ],
)
def test_names_asked_for_and_their_kin_are_none(asked: str, left: tuple[str, ...]) -> None:
    assert LISTED.choose(Vocabulary.of(asked), FakeClip()) == left


@pytest.mark.parametrize(
    ("asked", "gone", "stays"),
    [
        ("dog", {"puppy", "poodle", "terrier"}, {"cat", "wolf", "fox", "bear"}),
        ("puppies", {"dog", "puppy"}, {"cat", "kitten", "lamb"}),
        ("animal", {"dog", "cat", "zebra", "bee", "frog"}, {"car", "tree", "person"}),
        ("cat", {"kitten", "tabby"}, {"dog", "lion", "tiger"}),
        ("mug", {"cup", "mug"}, {"bowl", "bottle", "wine glass", "drinking glass"}),
        ("cup", {"cup", "mug", "drinking glass"}, {"bowl", "bottle", "wine glass"}),
        ("glass", {"drinking glass", "cup"}, {"bottle", "bowl", "wine glass"}),
        ("wheel", {"car", "bicycle", "taxi", "truck", "bus"}, {"boat", "ball", "person"}),
        ("car", {"taxi", "jeep"}, {"truck", "bus", "wheel", "headlight"}),
        ("mountain bike", {"bicycle"}, {"motorcycle", "mountain", "car"}),
        ("TV", {"television"}, {"laptop", "monitor"}),
        ("sofas", {"couch"}, {"chair", "bed"}),
        ("people", {"man", "woman", "boy"}, {"dog", "statue"}),
        ("house", {"house"}, {"window", "door", "roof", "tree"}),
    ],
)
def test_the_common_nouns_know_kinds_parts_and_synonyms(asked: str, gone: set[str], stays: set[str]) -> None:
    common = parse_distractors("common")
    left = set(common.choose(Vocabulary.of(asked), FakeClip()))
    assert not left & gone and stays <= left


def test_the_common_nouns_are_many_and_no_categories() -> None:
    names = parse_distractors("common").names
    assert len(names) == len(set(names)) > 400
    assert {"grass", "sky", "cloud", "wall", "dog", "bird"} <= set(names)
    assert not {"animal", "vehicle", "furniture", "food"} & set(names)
    assert resolve_policy("fast", "zip").presence == 1.0


class Stranger(FakeClip):
    """Its text features: ``near`` lies beside ``zeppelin``, the others lie around both."""

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        places = {"zeppelin": [1.0, 0.0, 0.0], "near": [0.99, 0.14, 0.0]}
        rows = [places.get(name, [0.5, 0.1 * (k % 5), 0.8]) for k, name in enumerate(vocabulary.names)]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_text_features_tell_who_is_near_a_name_that_is_not_known() -> None:
    names = ("near", *(f"word {k}" for k in range(40)), "dog", "puppy")
    listed = Distractors(names, PETS, nearest=2.5)
    assert listed.choose(Vocabulary.of("zeppelin"), Stranger()) == names[1:]
    assert "near" in listed.choose(Vocabulary.of("dog"), Stranger())  # the taxonomy knows it, and decides alone
    assert Distractors(names).choose(Vocabulary.of("zeppelin"), Stranger()) == names
    assert Distractors().choose(Vocabulary.of("dog"), FakeClip()) == ()


def test_a_nearness_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="nearness above 0"):
        Distractors(nearest=0.0)
