import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.detections.panoptic import PanopticMap, PanopticSettings, Segment, merge_panoptic
from annofree.errors import InputError
from annofree.structures import VOID, BoolArray, Detections, LabelMap

SIZE = (8, 10)
THINGS = ("person", "tie", "dog")


def box(y0: int, x0: int, y1: int, x1: int) -> BoolArray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def found(*instances: tuple[BoolArray, str, float]) -> Detections:
    masks = np.stack([m for m, _, _ in instances]) if instances else np.zeros((0, *SIZE), bool)
    return Detections.from_masks(masks, [THINGS.index(n) for _, n, _ in instances], [s for _, _, s in instances], THINGS)


def ground(**areas: BoolArray) -> LabelMap:
    labels = np.full(SIZE, VOID, np.int32)
    for k, mask in enumerate(areas.values()):
        labels[mask] = k
    return LabelMap(labels, tuple(areas))


def names_of(result: PanopticMap) -> list[str]:
    return [result.names[info.class_id] for info in result.infos]


ALL = box(0, 0, 8, 10)


def test_the_strongest_gets_the_pixel_and_things_lie_over_stuff() -> None:
    things = found((box(0, 0, 4, 6), "dog", 0.5), (box(0, 4, 4, 10), "person", 0.75))
    result = merge_panoptic(things, ground(sky=box(0, 0, 2, 10), grass=box(2, 0, 8, 10)))
    expected = np.full(SIZE, 4)
    expected[:2] = 3
    expected[:4, :4] = 2
    expected[:4, 4:] = 1
    expected[expected == 3] = 0  # the things cover all of the sky
    expected[expected == 4] = 3
    assert result.segments.dtype == np.int32 and result.size == SIZE
    assert np.array_equal(result.segments, expected)
    assert result.names == (*THINGS, "sky", "grass")
    assert result.infos == (
        Segment(1, 0, True, 0.75, 24, (4, 0, 10, 4)),
        Segment(2, 2, True, 0.5, 16, (0, 0, 4, 4)),
        Segment(3, 4, False, None, 40, (0, 4, 10, 8)),
    )


@pytest.mark.parametrize(("min_visible", "shown"), [(0.0, 2), (0.25, 2), (0.3, 1), (1.0, 1)])
def test_an_instance_that_is_mostly_hidden_is_dropped(min_visible: float, shown: int) -> None:
    things = found((box(0, 0, 8, 3), "person", 0.9), (box(0, 0, 8, 4), "dog", 0.8))  # a quarter of the dog shows
    result = merge_panoptic(things, ground(grass=ALL), PanopticSettings(min_visible=min_visible))
    assert names_of(result) == [*["person", "dog"][:shown], "grass"]


def test_the_pixels_of_a_dropped_one_are_free_for_the_next() -> None:
    things = found((box(0, 0, 8, 6), "person", 0.9), (box(0, 0, 8, 8), "dog", 0.8), (box(0, 6, 8, 8), "tie", 0.7))
    result = merge_panoptic(things, ground(grass=ALL))
    assert names_of(result) == ["person", "tie", "grass"]
    assert (result.segments[:, 6:8] == 2).all()


def test_one_that_is_hidden_entirely_is_never_shown() -> None:
    things = found((box(0, 0, 8, 6), "person", 0.9), (box(1, 1, 3, 3), "tie", 0.8))
    assert names_of(merge_panoptic(things, ground(grass=ALL), PanopticSettings(min_visible=0))) == ["person", "grass"]


def test_the_contained_may_lie_above_what_contains_it() -> None:
    person, tie = (box(0, 0, 8, 6), "person", 0.9), (box(2, 2, 6, 3), "tie", 0.4)
    above = merge_panoptic(found(person, tie), ground(grass=ALL), PanopticSettings(contained_above=0.9))
    assert names_of(above) == ["person", "tie", "grass"]
    assert above.infos[0].area == 44 and (above.segments[2:6, 2] == 2).all()
    # not when it is a half outside, nor when it is the larger one
    beside = (box(2, 4, 4, 8), "tie", 0.4)
    half = merge_panoptic(found(person, beside), ground(grass=ALL), PanopticSettings(contained_above=0.5))
    assert half.infos[0].area == 48 and half.infos[1].area == 4
    same = merge_panoptic(found(person, (person[0], "dog", 0.4)), ground(grass=ALL), PanopticSettings(contained_above=0.5))
    assert names_of(same) == ["person", "grass"]


def test_the_contained_goes_above_all_that_contain_it() -> None:
    instances = (
        (box(0, 0, 8, 8), "person", 0.9),
        (box(0, 0, 4, 4), "dog", 0.8),
        (box(1, 1, 2, 3), "tie", 0.7),
        (box(4, 4, 8, 10), "dog", 0.6),
    )
    result = merge_panoptic(found(*instances), ground(grass=ALL), PanopticSettings(contained_above=0.9, min_visible=0))
    assert [info.area for info in result.infos] == [48, 14, 2, 8, 8]
    assert names_of(result) == ["person", "dog", "tie", "dog", "grass"]


def test_little_stuff_becomes_void() -> None:
    labels = ground(sky=box(0, 0, 1, 10), grass=box(1, 0, 8, 10))
    result = merge_panoptic(found(), labels, PanopticSettings(min_stuff=11))
    assert names_of(result) == ["grass"] and not result.segments[0].any()
    assert names_of(merge_panoptic(found(), labels, PanopticSettings(min_stuff=10))) == ["sky", "grass"]


def test_background_and_labels_of_things_are_void() -> None:
    labels = ground(background=box(0, 0, 8, 3), dog=box(0, 3, 8, 6), grass=box(0, 6, 8, 10))
    result = merge_panoptic(found((box(0, 0, 2, 2), "tie", 0.5)), LabelMap(labels.labels, labels.names, background=0))
    assert names_of(result) == ["tie", "grass"] and result.names == (*THINGS, "grass")
    assert not result.segments[:, 3:6].any() and not result.segments[2:, :3].any()


def test_one_vocabulary_for_both_is_parted_by_what_is_stuff() -> None:
    labels = ground(person=box(0, 0, 8, 3), tie=box(0, 3, 8, 6), dog=box(0, 6, 8, 10))
    things = found((box(0, 0, 4, 4), "dog", 0.9), (box(0, 0, 4, 4), "person", 0.8))
    result = merge_panoptic(things, labels, stuff=["dog", "tie"])
    assert names_of(result) == ["person", "tie", "dog"] and result.names == THINGS
    assert [(info.is_thing, info.area) for info in result.infos] == [(True, 16), (False, 20), (False, 32)]
    assert names_of(merge_panoptic(things, labels)) == ["dog"]
    with pytest.raises(InputError, match="did you mean 'tie'"):
        merge_panoptic(things, labels, stuff=["ties"])


def test_empty_full_and_unequal() -> None:
    nothing = merge_panoptic(found(), ground(sky=np.zeros(SIZE, bool)))
    assert not nothing.segments.any() and nothing.infos == ()
    everything = merge_panoptic(found((ALL, "dog", 0.3)), ground(sky=ALL))
    assert (everything.segments == 1).all() and len(everything.infos) == 1
    assert len(merge_panoptic(found(), ground(sky=ALL), PanopticSettings(contained_above=0.5)).infos) == 1
    with pytest.raises(InputError, match="one size"):
        merge_panoptic(Detections.none((3, 3), THINGS), ground(sky=ALL))


@pytest.mark.parametrize("wrong", [{"min_visible": 1.5}, {"contained_above": -0.1}, {"min_stuff": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        PanopticSettings(**wrong)  # type: ignore[arg-type]


def slow(things: Detections, labels: LabelMap, rules: PanopticSettings) -> list[list[tuple[str, float] | str | None]]:
    """What every pixel is, with sets of pixels: the class and score of an instance, the name of stuff, or None."""
    pixels = [{(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)} for mask in things.masks]
    stack: list[int] = []  # from the top
    for i, mine in enumerate(pixels):
        holders = [j for j in stack if len(mine & pixels[j]) > rules.contained_above * len(mine) and len(mine) < len(pixels[j])]
        stack.insert(stack.index(holders[0]) if holders else len(stack), i)
    canvas: dict[tuple[int, int], tuple[str, float] | str] = {}
    for i in stack:
        free = pixels[i] - set(canvas)
        if free and len(free) >= rules.min_visible * len(pixels[i]):
            canvas |= dict.fromkeys(free, (things.labels[i], float(things.scores[i])))
    for k, name in enumerate(labels.names):
        free = {p for p in np.ndindex(*SIZE) if labels.labels[p] == k} - set(canvas)
        if name not in things.names and len(free) >= rules.min_stuff:
            canvas |= dict.fromkeys(free, name)
    return [[canvas.get((y, x)) for x in range(SIZE[1])] for y in range(SIZE[0])]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 7),
    st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.integers(0, 15),
)
def test_it_is_the_slow_way(seed: int, count: int, min_visible: float, contained_above: float, min_stuff: int) -> None:
    random = np.random.default_rng(seed)
    corners = [np.sort(random.integers(0, (9, 11), (2, 2)), axis=0) for _ in range(count)]
    masks = [box(int(a[0]), int(a[1]), int(b[0]), int(b[1])) for a, b in corners]
    things = found(*((m, THINGS[k % 3], 0.9 - k / 16) for k, m in enumerate(masks)))
    labels = LabelMap(random.integers(-1, 3, SIZE).astype(np.int32), ("sky", "dog", "grass"))
    rules = PanopticSettings(min_visible, contained_above, min_stuff)
    result = merge_panoptic(things, labels, rules)
    said = {i.id: (result.names[i.class_id], i.score) if i.is_thing else result.names[i.class_id] for i in result.infos}
    assert [[said.get(id_) for id_ in row] for row in result.segments.tolist()] == slow(things, labels, rules)
    assert [i.id for i in result.infos] == list(range(1, len(result.infos) + 1))
    for info in result.infos:
        ys, xs = np.nonzero(result.segments == info.id)
        assert info.area == len(ys) and info.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_coco_rows_and_back() -> None:
    result = merge_panoptic(found((box(0, 0, 4, 6), "dog", 0.5)), ground(sky=ALL))
    rows = result.to_coco()
    assert rows == [
        {"id": 1, "category_id": 3, "area": 24, "bbox": [0, 0, 6, 4], "iscrowd": 0, "score": 0.5},
        {"id": 2, "category_id": 4, "area": 56, "bbox": [0, 0, 10, 8], "iscrowd": 0},
    ]
    categories = [{"id": 10 * k, "name": n, "isthing": int(n != "sky")} for k, n in enumerate(result.names, 1)]
    again = PanopticMap.from_coco(result.segments, result.to_coco([10, 20, 30, 40]), categories)
    assert again.infos == result.infos and again.names == result.names


def test_a_map_and_its_infos_agree() -> None:
    info = Segment(5, 0, True, 0.5, 1, (0, 0, 1, 1))
    segments = np.array([[5, 0]], np.int32)
    assert PanopticMap(segments, (info,), ("dog",)).size == (1, 2)
    for wrong in ((), (info, info), (Segment(6, 0, True, 0.5, 1, (0, 0, 1, 1)),)):
        with pytest.raises(InputError, match="each once"):
            PanopticMap(segments, wrong, ("dog",))
