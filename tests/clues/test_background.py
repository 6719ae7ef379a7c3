from __future__ import annotations

from typing import Any

import pytest
import torch

from annofree.clues.background import Background
from annofree.errors import InputError
from annofree.structures import Vocabulary

BEST = torch.tensor([[0, 1], [2, 3]])
VALUES = torch.tensor([[0.9, 0.4], [0.6, 0.5]])


def test_a_word_is_added_in_front() -> None:
    asked = Background().list_rows("dog: puppy, cat")
    assert asked.rows.synonyms == (("background",), ("dog", "puppy"), ("cat",))
    assert (asked.names, asked.owner, asked.background) == (("background", "dog", "cat"), (0, 1, 2), 0)
    assert asked.is_background.tolist() == [True, False, False]
    assert Background().label_pixels(asked, BEST % 3, VALUES).labels.tolist() == [[0, 1], [2, 0]]


def test_several_words_stand_for_one_background() -> None:
    rule = Background(words=("sky", "wall"))
    asked = rule.list_rows("dog, cat")
    assert asked.rows.names == ("sky", "wall", "dog", "cat") and asked.owner == (0, 0, 1, 2)
    found = rule.label_pixels(asked, BEST, VALUES)
    assert found.labels.tolist() == [[0, 0], [1, 2]] and found.names == ("background", "dog", "cat") and found.background == 0


@pytest.mark.parametrize("rule", ["words", "threshold", "objectness", "none"])
def test_who_lists_background_gets_it_once(rule: Any) -> None:
    asked = Background(rule).list_rows("dog, Background, cat")
    assert asked.names == asked.rows.names == ("dog", "Background", "cat")
    assert (asked.owner, asked.background) == ((0, 1, 2), 1)


def test_other_words_join_a_listed_background() -> None:
    asked = Background(words=("background", "sky")).list_rows("dog, background")
    assert asked.rows.names == ("sky", "dog", "background")
    assert (asked.names, asked.owner, asked.background) == (("dog", "background"), (1, 0, 1), 1)
    assert asked.is_background.tolist() == [True, False, True]


def test_what_is_asked_for_is_no_background() -> None:
    asked = Background(words=("sky",)).list_rows("Sky, dog")
    assert (asked.names, asked.owner, asked.background) == (("Sky", "dog"), (0, 1), None)
    assert not asked.is_background.any()


def test_background_alone_is_an_answer() -> None:
    asked = Background().list_rows("background")
    assert Background().label_pixels(asked, torch.zeros(2, 2, dtype=torch.long), VALUES).compute_shares() == {"background": 1.0}


def test_scores_below_a_threshold() -> None:
    rule = Background("threshold", threshold=0.5)
    asked = rule.list_rows("a, b, c, d")
    assert asked.rows.names == ("a", "b", "c", "d") and asked.names[0] == "background"
    assert rule.label_pixels(asked, BEST, VALUES).labels.tolist() == [[1, 0], [3, 4]]
    listed = rule.list_rows("a, b, background, d")
    assert rule.label_pixels(listed, BEST, VALUES).labels.tolist() == [[0, 2], [2, 3]]


def test_objectness_below_a_threshold() -> None:
    rule = Background("objectness", threshold=0.5)
    asked = rule.list_rows("a, b, c, d")
    assert rule.label_pixels(asked, BEST, VALUES, torch.tensor([[0.0, 1.0], [0.5, 0.4]])).labels.tolist() == [[0, 2], [3, 0]]
    with pytest.raises(InputError, match="needs an objectness source"):
        rule.label_pixels(asked, BEST, VALUES)


def test_none_names_every_pixel() -> None:
    asked = Background("none").list_rows("a, b, c, d")
    found = Background("none").label_pixels(asked, BEST, VALUES)
    assert found.labels.tolist() == BEST.tolist() and found.background is None


def test_bad_rules_and_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown background rule 'word'; did you mean 'words'\?"):
        Background("word")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected words for the background"):
        Background(words=())
    for classes in ("", "dog, dog", ["dog", ""]):
        with pytest.raises(InputError):
            Background().list_rows(classes)
    assert Background(words=["sky"]) == Background(words=("sky",))  # type: ignore[arg-type]  # as TOML gives it
    assert Background().list_rows(Vocabulary.of("dog")).names == ("background", "dog")
