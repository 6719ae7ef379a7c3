"""Where tags go: none over another, none over a small instance, the best place first, at last none."""

import numpy as np
import PIL.Image
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.render.tags import Cover, Tag, Tagging

Box = tuple[int, int, int, int]
SIZE = (400, 600)
RED = (210, 0, 0)


def tagging(boxes: list[Box], size: tuple[int, int] = SIZE) -> Tagging:
    """Of filled boxes."""
    cover = Cover(size)
    for number, box in enumerate(boxes):
        mask = PIL.Image.new("L", size[::-1])
        mask.paste(255, box)
        cover.add(number, mask, box)
    return Tagging(size, cover, 13)


def shared(a: Box, b: Box) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def in_turn(boxes: list[Box], size: tuple[int, int] = SIZE, texts: tuple[str, ...] = ("a name 0.50", "a name")) -> list[Box]:
    made = tagging(boxes, size)
    for number, box in enumerate(boxes):
        made.place(number, Tag(box, RED, texts))
    return made.places


def test_a_tag_stands_above_its_box_from_its_left_side() -> None:
    (place,) = in_turn([(200, 100, 400, 300)])
    assert (place[0], place[3]) == (200, 100)


def test_a_box_as_large_as_the_picture_has_its_tag_inside() -> None:
    (place,) = in_turn([(0, 0, 600, 400)])
    assert place[:2] == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 560), st.integers(0, 370), st.integers(4, 200), st.integers(4, 200)), max_size=40),
    st.sampled_from([(400, 600), (401, 613), (1300, 900), (40, 700)]),
)
def test_tags_never_meet_and_stay_inside(corners: list[Box], size: tuple[int, int]) -> None:
    height, width = size
    boxes = [(x % (width - 4), y % (height - 4), 0, 0) for x, y, _, _ in corners]
    boxes = [(x, y, min(width, x + w), min(height, y + h)) for (x, y, _, _), (_, _, w, h) in zip(boxes, corners, strict=True)]
    made = tagging(boxes, size)
    placed = [made.place(number, Tag(box, RED, ("a name 0.50", "a name"))) for number, box in enumerate(boxes)]
    places = made.places
    assert sum(placed) == len(places)
    for k, a in enumerate(places):
        assert 0 <= a[0] < a[2] <= width and 0 <= a[1] < a[3] <= height
        assert not any(shared(a, b) for b in places[:k])
    assert all(made.place(number, Tag(box, RED, ())) is False for number, box in enumerate(boxes[:1]))


def test_small_instances_stay_free_where_there_is_room() -> None:
    small = [(x, y, x + 14, y + 14) for x in range(60, 560, 120) for y in range(60, 360, 80)]
    places = in_turn([(0, 0, 600, 400), *small])
    assert len(places) == 1 + len(small)
    assert not any(shared(place, box) for place in places for box in small)


def test_a_small_one_beside_a_large_one_stays_free() -> None:
    """Above the large one, where its tag would go first, lies the small one."""
    large, small = (200, 100, 500, 300), (205, 86, 225, 98)
    places = in_turn([large, small])
    assert len(places) == 2 and not any(shared(place, small) for place in places)


def test_a_pair_of_cells_costs_as_much_as_what_it_hides() -> None:
    cover = Cover((2000, 3000))
    mask = PIL.Image.new("L", (3000, 2000))
    mask.paste(255, (600, 600, 1200, 1200))
    cover.add(0, mask, (600, 600, 1200, 1200))
    whole, half, none = cover.count_hidden(np.array([[0, 0, 3000, 2000], [600, 600, 900, 1200], [0, 0, 590, 2000]]))
    assert 1.2 < whole / 2**20 < 1.3 and 0.45 < half / whole < 0.55 and none == 0  # the box counts for a quarter


def test_what_is_less_than_a_cell_counts_too() -> None:
    cover = Cover((9000, 9000))
    mask = PIL.Image.new("L", (9000, 9000))
    mask.putpixel((5000, 5000), 255)
    cover.add(0, mask, (5000, 5000, 5001, 5001))
    assert cover.count_hidden(np.array([[4900, 4900, 5100, 5100]]))[0] > 2**20
    x, y = cover.find_nearest(0, (0, 0))
    assert abs(x - 5000) < 20 and abs(y - 5000) < 20


def test_a_box_outside_of_the_picture_is_taken_at_its_edge() -> None:
    cover = Cover(SIZE)
    cover.add(0, PIL.Image.new("L", SIZE[::-1], 255), (700, 500, 700, 500))
    assert cover.count_hidden(np.array([[0, 0, 600, 400]]))[0] > 0 and cover.find_nearest(0, (0, 0)) == (599, 399)


def test_the_nearest_point_of_a_mask_lies_on_it() -> None:
    cover = Cover(SIZE)
    mask = PIL.Image.new("L", SIZE[::-1])
    mask.paste(255, (100, 100, 120, 300))
    mask.paste(255, (100, 280, 300, 300))  # an L, whose box has its center outside
    cover.add(0, mask, (100, 100, 300, 300))
    x, y = cover.find_nearest(0, (200, 200))
    assert mask.getpixel((x, y)) == 255


def test_without_room_the_text_is_shorter_and_then_left_out() -> None:
    boxes = [(0, 0, 70, 60)] * 12
    made = tagging(boxes, (60, 70))
    placed = [made.place(number, Tag(box, RED, ("a name 0.50", "name"))) for number, box in enumerate(boxes)]
    widths = {place[2] - place[0] for place in made.places}
    assert not all(placed) and max(widths) <= 70
    assert not tagging([(0, 0, 70, 60)], (60, 70)).place(0, Tag((0, 0, 70, 60), RED, ("a text wider than the image",)))


def test_a_tag_away_from_its_box_has_a_line_to_it() -> None:
    crowd = [(x, y, x + 16, y + 16) for x in range(260, 340, 18) for y in range(160, 240, 18)]
    number = crowd.index((296, 196, 312, 212))
    made = tagging(crowd)
    assert made.place(number, Tag(crowd[number], RED, ("a name 0.50",)))
    canvas = PIL.Image.new("RGB", SIZE[::-1], (90, 90, 90))
    made.draw(canvas)
    (place,) = made.places
    assert not any(shared(place, box) for box in crowd)
    assert (np.asarray(canvas)[196:212, 296:312] == RED).all(2).any()  # the dot at its end


def test_a_note_keeps_clear_of_tags_and_needs_room() -> None:
    made = tagging([(0, 300, 200, 400)])
    made.place(0, Tag((0, 300, 200, 400), RED, ("a name 0.50",)))
    assert made.note("and 12 more")
    tag, note = made.places
    assert not shared(tag, note) and not shared(note, (0, 300, 200, 400))
    assert not tagging([], (10, 10)).note("and 12 more")
