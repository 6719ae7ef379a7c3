"""A bank of the folder: who is kept, who votes, and what its signals say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annofree.detections.bank import BANK_SIGNALS, BankCalibration, BankSettings, Named, hash_image
from annofree.detections.collect_bank import collect_bank
from annofree.detections.mask_shapes import compare_shapes, measure_shapes
from annofree.errors import InputError
from annofree.ops.rle import encode_rles
from annofree.structures import Detections

NAMES = ("cat", "dog")


def see(image: int, *things: tuple[str, float, list[float]], wide: int = 8) -> Named:
    """Things side by side: the name by text, its score, and the feature; text is sure of names by the score."""
    masks = np.zeros((len(things), 8, wide * max(len(things), 1)), bool)
    for k, mask in enumerate(masks):
        mask[1:7, k * wide + 1 : k * wide + 7] = True
    ids = np.array([NAMES.index(name) for name, _, _ in things], np.int64)
    scores = np.array([score for _, score, _ in things], np.float32)
    shares = torch.from_numpy(np.where(np.arange(2)[None] == ids[:, None], scores[:, None], 1 - scores[:, None]))
    order = np.argsort(-scores, kind="stable")
    found = Detections.from_masks(masks, ids, scores, NAMES)
    features = F.normalize(torch.tensor([feature for _, _, feature in things]).view(len(things), 3), dim=1)
    return Named(found, features[order.copy()], shares[order.copy()], image)


CAT, DOG = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
FOLDER = [see(k, ("cat", 0.9, CAT), ("dog", 0.8, DOG)) for k in range(3)]


def test_what_looks_like_sure_cats_elsewhere_is_a_cat() -> None:
    bank = collect_bank(FOLDER, BankSettings(mixture=0.5))
    unsure = see(9, ("dog", 0.55, CAT))
    [found] = bank.name_again(unsure)
    assert found.names[found.class_ids[0]] == "cat" and unsure.rank().class_ids.tolist() == [1]


def test_an_image_and_its_copies_are_no_witnesses_of_themselves() -> None:
    alone = [see(7, ("cat", 0.9, CAT)), see(8, ("dog", 0.9, DOG))]
    bank = collect_bank(alone, BankSettings(mixture=0.5))
    wrong = see(7, ("dog", 0.55, CAT))
    assert bank.name_again(wrong).class_ids.tolist() == [1], "its own cat says nothing"
    assert bank.name_again(replace(wrong, image=9)).class_ids.tolist() == [0]
    whole = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert hash_image(whole) == hash_image(whole.half().float()) != hash_image(-whole)


def test_no_part_of_the_bank_leaves_names_and_scores() -> None:
    bank = collect_bank(FOLDER, BankSettings(mixture=0.0))
    asked = see(9, ("dog", 0.6, CAT), ("cat", 0.9, CAT))
    found, plain = bank.name_again(asked), asked.rank()
    np.testing.assert_array_equal(found.class_ids, plain.class_ids)
    np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-5)


def test_a_reference_whose_lookalikes_have_another_name_is_an_outlier() -> None:
    odd = [*FOLDER, see(5, ("dog", 0.9, CAT))]
    bank = collect_bank(odd, BankSettings())
    told = [(bank.names[bank.ids[k]], bank.images[k].item()) for k in bank.references]
    assert ("dog", 5) not in told and len(told) == 6
    assert len(collect_bank(odd, BankSettings(support=0.0)).references) == 7


def test_names_pass_on_among_references() -> None:
    odd = [*FOLDER, see(5, ("dog", 0.9, CAT))]
    bank = collect_bank(odd, BankSettings(support=0.0, smoothing=0.8))
    [row] = [k for k, place in enumerate(bank.references) if bank.images[place] == 5]
    cat = bank.smoothed[row, bank.names.index("cat")]
    assert 0.6 < cat < 0.9
    torch.testing.assert_close(bank.smoothed.sum(1), torch.ones(len(bank.references)))


def test_of_a_name_the_strongest_are_kept_however_many_there_are() -> None:
    many = [see(k, ("cat", 0.5 + k / 100, CAT), ("dog", 0.7, DOG)) for k in range(40)]
    bank = collect_bank(iter(many), BankSettings(per_name=5))
    cats = bank.scores[bank.ids == bank.names.index("cat")]
    np.testing.assert_allclose(cats, [0.89, 0.88, 0.87, 0.86, 0.85], rtol=1e-6)
    dogs = bank.images[bank.ids == bank.names.index("dog")]
    assert dogs.tolist() == [0, 1, 2, 3, 4], "of equals the first"


def test_what_loses_to_another_is_kept_as_not_told() -> None:
    twice = see(0, ("cat", 0.9, CAT))
    both = replace(
        twice,
        candidates=Detections.merge([twice.candidates, replace(twice.candidates, scores=np.array([0.45], np.float32))]),
        features=twice.features[[0, 0]],
        shares=twice.shares[[0, 0]],
    )
    bank = collect_bank([both], BankSettings())
    assert bank.told.tolist() == [False, True] and len(bank.references) == 1


def test_a_name_told_often_is_likelier_where_asked() -> None:
    folder = [see(k, *[("cat", 0.9, CAT)] * (1 + 2 * (k > 0)), *[("dog", 0.9, DOG)] * (k == 0)) for k in range(4)]
    unsure = see(9, ("dog", 0.501, [0.0, 0.0, 1.0]))
    assert collect_bank(folder, BankSettings(mixture=0.0)).name_again(unsure).class_ids.tolist() == [1]
    assert collect_bank(folder, BankSettings(mixture=0.0, prior=0.5)).name_again(unsure).class_ids.tolist() == [0]


def test_signals_say_whether_the_shape_is_that_of_references() -> None:
    bank = collect_bank(FOLDER, BankSettings())
    square, flat = see(9, ("cat", 0.9, CAT)), see(9, ("cat", 0.9, CAT))
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 1:3, 1:7] = True
    flat = replace(flat, candidates=replace(flat.candidates, rles=tuple(encode_rles(mask))))
    rows = [bank.compute_signals(one, bank.compute_shares(one))[0] for one in (square, flat)]
    column = BANK_SIGNALS.index("best_shape")
    assert rows[0][column] == pytest.approx(1) and rows[1][column] == pytest.approx(1 / 3, abs=1e-3)
    assert rows[0][BANK_SIGNALS.index("told")] == pytest.approx(0.9)


def test_a_logistic_of_the_signals_is_the_score() -> None:
    own = BankCalibration({"best_shape": 4.0}, -2.0)
    bank = collect_bank(FOLDER, BankSettings(calibration=own))
    asked = see(9, ("cat", 0.2, CAT))
    assert bank.name_again(asked).scores[0] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-4)
    with pytest.raises(InputError, match="unknown signal 'quality'"):
        BankCalibration({"quality": 1.0}, 0.0)


def test_nothing_sure_is_no_bank() -> None:
    with pytest.raises(InputError, match=r"none in 1 images is told with a score of 0\.2 or more; leave the bank out"):
        collect_bank([see(0, ("cat", 0.1, CAT))], BankSettings())
    with pytest.raises(InputError, match="none in 0 images"):
        collect_bank([], BankSettings())


def test_nothing_found_stays_nothing() -> None:
    bank = collect_bank([*FOLDER, see(4)], BankSettings())
    assert len(bank.name_again(see(9))) == 0
    assert bank.provenance["references"] == {"cat": 3, "dog": 3} and bank.provenance["candidates"] == 6


def test_names_that_a_bank_has_not_are_left_to_text() -> None:
    bank = collect_bank(FOLDER, BankSettings(mixture=0.3, prior=0.1))
    asked = see(9, ("cat", 0.9, [0.0, 0.0, 1.0]))
    other = replace(asked, candidates=replace(asked.candidates, names=("fox", "wolf")))
    assert bank.name_again(other).class_ids.tolist() == [0]


def test_a_shape_is_that_of_its_mirror_image_and_of_any_size() -> None:
    masks = np.zeros((3, 32, 32), bool)
    for k, (size, mirrored) in enumerate(((16, False), (16, True), (32, False))):
        corner = np.tri(size, dtype=bool)
        masks[k, :size, :size] = corner[:, ::-1] if mirrored else corner
    shapes, aspects = measure_shapes(encode_rles(masks))
    alike = compare_shapes(shapes[:1], aspects[:1], shapes[None, 1:], aspects[None, 1:])
    assert alike.min() > 0.9 and measure_shapes([])[0].shape == (0, 16, 16)
