"""Label-free risks, agreement and the true error, on cases made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from annofree.evaluation.metrics.matching import compute_error, count_changed, measure_agreement
from annofree.evaluation.review.consistency_views import VIEWS, combine_views
from annofree.evaluation.review.risk import (
    MEANINGS,
    STORED,
    Scale,
    compute_joint_risk,
    compute_stored_parts,
    measure_disagreement,
)
from annofree.formats.annotations import Annotation
from annofree.structures import Detections, Image

SIZE = (12, 20)


def thing(name: str, score: float | None, *boxes: Sequence[int], crowd: bool = False) -> Annotation:
    mask = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return Annotation.of_mask(name, mask, score, crowd)


DOG, CAT = thing("dog", 0.8, (0, 0, 4, 4)), thing("cat", 0.4, (0, 0, 4, 4))
FAR, BROKEN = thing("dog", 0.6, (10, 0, 14, 4)), thing("dog", 0.5, (0, 0, 4, 3), (8, 8, 12, 9))


def values(things: Sequence[Annotation], scale: Scale = Scale(0.2, 1.0)) -> dict[str, float]:  # noqa: B008
    return {name: part.value for name, part in compute_stored_parts(things, scale).items()}


def test_parts_by_hand() -> None:
    assert list(values([])) == list(STORED) and set(STORED) < set(MEANINGS)
    assert values([DOG, FAR])["score"] == pytest.approx(0.3)
    assert values([DOG, FAR])["margin"] == pytest.approx(0.25)
    assert values([DOG])["rivals"] == values([DOG, FAR])["rivals"] == values([FAR, BROKEN])["rivals"] == 0
    assert values([DOG, CAT, FAR])["rivals"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert values([BROKEN])["fragments"] == 0.25 and values([DOG])["fragments"] == 0
    assert values([DOG, CAT])["overlap"] == 0.5 and values([DOG, FAR])["overlap"] == 0
    assert values([DOG] * 5)["crowding"] == 0.5
    assert values([DOG] * 5)["doubt"] == pytest.approx(1 - 0.8 * 0.5)
    assert set(values([], Scale()).values()) == {1.0}


def test_diagonal_pixels_are_one_piece() -> None:
    assert values([thing("dog", 0.5, (0, 0, 2, 2), (2, 2, 4, 4))])["fragments"] == 0


def test_reasons_say_what_is_wrong() -> None:
    told = {name: part.reason for name, part in compute_stored_parts([DOG, CAT, BROKEN], Scale(0.4, 0.8)).items()}
    assert told["rivals"] == "dog 0.80 and cat 0.40 claim the same pixels"
    assert told["fragments"] == "the mask of dog 0.50 is in pieces, 25 % of it outside the largest"
    assert told["score"] == "the mean score is 0.57" and "3 instances" in told["crowding"]
    assert "dog 0.80" in told["margin"] and told["overlap"].startswith("58 %")
    assert "1 of 2 instances" in measure_disagreement([DOG, FAR], [DOG], "in the mirror").reason
    assert "1 instances in the other run" in measure_disagreement([], [DOG], "in the other run").reason


def test_boxes_and_missing_scores_do() -> None:
    plain = [Annotation("dog", (0.0, 0.0, 4.0, 4.0)), Annotation("cat", (0.0, 0.0, 4.0, 4.0))]
    assert values(plain)["rivals"] == 1 and values(plain)["overlap"] == values(plain)["fragments"] == 0
    assert measure_agreement(plain, plain[:1]) == pytest.approx(2 / 3) and compute_error(plain, plain) == 0


def test_agreement_is_weighed_by_scores_and_matches_one_to_one() -> None:
    half = thing("dog", 0.8, (0, 0, 4, 2))
    assert measure_agreement([DOG], [half]) == pytest.approx(0.5) and measure_agreement([DOG], [CAT]) == 0
    assert measure_agreement([DOG, FAR], [DOG]) == pytest.approx(1.6 / 2.2)
    assert measure_agreement([DOG, DOG], [DOG]) == pytest.approx(1.6 / 2.4)
    assert measure_agreement([half, DOG], [DOG, half]) == 1.0 and count_changed([DOG, FAR], [half]) == 1
    assert measure_agreement([thing("dog", 0.0, (0, 0, 2, 2))], []) == 1.0  # what has no score weighs nothing


def test_error_by_hand() -> None:
    truth = [thing("dog", None, (0, 0, 4, 4)), thing("dog", None, (10, 0, 14, 4))]
    assert compute_error(truth, [DOG, FAR]) == 0 and compute_error(truth, [CAT]) == 1
    assert compute_error(truth, [DOG]) == pytest.approx(1 - 2 / 3)
    assert compute_error(truth, [DOG, DOG]) == pytest.approx(0.5)  # a truth is found once
    crowd = thing("dog", None, (0, 0, 20, 12), crowd=True)
    assert compute_error([crowd], [DOG]) == 0 and compute_error([crowd], [CAT]) == 1 and compute_error([crowd], []) == 0


def test_the_best_scored_chooses_first() -> None:
    truth = [thing("dog", None, (0, 0, 4, 4)), thing("dog", None, (0, 2, 4, 6))]
    both = thing("dog", 0.9, (0, 1, 4, 5))  # IoU 0.6 with either
    assert compute_error(truth, [both, thing("dog", 0.1, (0, 0, 4, 4))]) == pytest.approx(0.5)


def detections(things: Sequence[Annotation], masks: np.ndarray) -> Detections:
    names = sorted({t.name for t in things})
    return Detections.from_masks(masks, [names.index(t.name) for t in things], [t.score or 0 for t in things], names)


@pytest.mark.parametrize("name", VIEWS)
def test_views_bring_masks_back(name: str) -> None:
    """An image whose only thing is a white block: the block found in the view is the block brought back."""
    pixels = np.zeros((48, 84, 3), np.uint8)
    pixels[16:32, 28:56] = 255
    image, view = Image(pixels, "a"), VIEWS[name]
    seen = view.look(image)
    assert seen.id == "a" and (name == "flip") == (seen.size == image.size)
    block = pixels[..., 0] > 127
    stored, found = Annotation.of_mask("dog", block, 0.5), seen.pixels[..., 0] > 127
    again = view.map_back(Detections.from_masks(found[None], [0], [0.5], ["dog"]), image.size)
    part = view.compare([stored], again, image.size)
    assert part.value < 0.1 and "0 of 1" in part.reason and view.about in part.reason
    assert view.compare([stored], [], image.size).value == 1
    wrong = Detections.from_masks(np.roll(found, 7, 1)[None], [0], [0.5], ["dog"])
    assert view.compare([stored], view.map_back(wrong, image.size), image.size).value > 0.3


def test_what_a_view_cuts_off_is_not_missed() -> None:
    corner = thing("dog", 0.5, (0, 0, 1, 1))
    assert VIEWS["shift"].compare([corner], [], SIZE).value == 0
    assert VIEWS["flip"].compare([corner], [], SIZE).value == 1


def test_jitter_is_the_mean_and_tells_of_the_worst() -> None:
    parts = {"flip": measure_disagreement([DOG], [DOG], "there"), "shift": measure_disagreement([DOG], [], "here")}
    assert (combine_views(parts).value, combine_views(parts).reason) == (0.5, parts["shift"].reason)


def test_joint_is_score_times_agreement() -> None:
    same, other = measure_disagreement([DOG], [DOG], "there"), measure_disagreement([DOG], [], "here")
    assert compute_joint_risk([DOG], [same]).value == pytest.approx(0.2) and compute_joint_risk(
        [DOG], [same, other]
    ).value == pytest.approx(0.6)
    assert (
        compute_joint_risk([DOG], [same, other]).reason == other.reason
        and compute_joint_risk([], [measure_disagreement([], [], "there")]).value == 1
    )
