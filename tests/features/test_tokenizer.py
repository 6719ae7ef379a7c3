import open_clip
import pytest
import torch

from annofree.features.tokenizer import Tokenizer, collect_token_ids

TEXTS = ["a photo of a dog", "a photo of two elephants and an orange", "traffic light"]
LENGTH = 12


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer(LENGTH, collect_token_ids(TEXTS))


def test_the_full_tokenizer_is_open_clips() -> None:
    texts = [*TEXTS, "", "Ünïcödé & <tags>", "word " * 100]
    full = Tokenizer(77)
    theirs = open_clip.get_tokenizer("RN50")
    assert torch.equal(full(texts), theirs(texts))
    assert full.size == 49408
    assert not full.is_unknown("unicorn")


def test_the_vocabulary_is_sorted_and_holds_each_token_once() -> None:
    vocabulary = collect_token_ids(TEXTS)
    assert vocabulary == sorted(set(vocabulary)) == collect_token_ids(reversed(TEXTS))
    words = {word for text in TEXTS for word in text.split()}
    assert len(vocabulary) == len(words)  # each of these words is one token


def test_start_words_end_and_padding(small: Tokenizer) -> None:
    start, end = small.size - 2, small.size - 1
    rows = small(["a dog", "", TEXTS[1]])
    assert rows.shape == (3, LENGTH) and rows.dtype == torch.int64
    a, dog = rows[0, 1:3].tolist()
    assert rows[0].tolist() == [start, a, dog, end] + [0] * (LENGTH - 4)
    assert a != dog and all(2 <= i < start for i in (a, dog))
    assert rows[1].tolist() == [start, end] + [0] * (LENGTH - 2)
    assert rows[2, 1] == a  # the same word, the same id


def test_ids_are_the_full_ones_renumbered_in_order(small: Tokenizer) -> None:
    vocabulary = collect_token_ids(TEXTS)
    full = Tokenizer(LENGTH)(TEXTS)
    for ours, theirs in zip(small(TEXTS), full, strict=True):
        words = [t for t in theirs.tolist() if t and t < 49406]
        assert ours[1 : len(words) + 1].tolist() == [2 + vocabulary.index(t) for t in words]


def test_the_end_is_the_highest_id_and_there_once(small: Tokenizer) -> None:
    rows = small([*TEXTS, "unicorn", "dog " * 50])
    assert int(rows.max()) == small.size - 1
    assert (rows == small.size - 1).sum(1).tolist() == [1] * len(rows)
    # where CLIP's text tower reads its feature
    assert [int(row[row.argmax() - 1]) != 0 for row in rows] == [True] * len(rows)


def test_unknown_words_become_one(small: Tokenizer) -> None:
    assert small.is_unknown("unicorn") and small.is_unknown("a purple dog")
    assert not small.is_unknown("dog") and not small.is_unknown("Two Elephants")
    row = small(["a xylophone"])[0].tolist()
    end = row.index(small.size - 1)
    assert row[0] == small.size - 2 and 1 in row[2:end]
    assert set(row[2:end]) == {1}


def test_a_long_text_keeps_its_start_and_its_end(small: Tokenizer) -> None:
    row = small(["dog " * 50])[0]
    dog = int(small(["dog"])[0, 1])
    assert row.tolist() == [small.size - 2] + [dog] * (LENGTH - 2) + [small.size - 1]
    exact = small(["dog " * (LENGTH - 2)])[0]
    assert torch.equal(exact, row)


def test_no_texts(small: Tokenizer) -> None:
    assert small([]).shape == (0, LENGTH)
