"""Values of annotations, checked where they are read: finite numbers, sizes, boxes whose corners are in order."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from annofree.errors import InputError
from annofree.formats.passed_over import PassedOver, Place
from annofree.io.text import decode_name

__all__ = [
    "MOST_PIXELS",
    "check_segmentation",
    "find_image",
    "normalize_id",
    "order_box",
    "read_image_size",
    "read_list",
    "read_numbers",
    "read_objects",
    "read_size",
    "tell_names_apart",
]

Box = tuple[float, float, float, float]
Id = TypeVar("Id", bound=Hashable)

MOST_PIXELS = 1 << 29
"""The largest image that annotations may claim, 23,170 x 23,170, for masks of that size are allocated."""

_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5
_FEWEST_NUMBERS = 6  # of a polygon
_FARTHEST_POINT = 1e7  # px, beyond which filling a polygon takes long
_FARTHEST = 1e9  # px, from which on coordinates are no place near an image


def read_numbers(values: Iterable[Any], what: str) -> list[float]:
    """Return finite numbers; raises ValueError for anything else, text that is none, NaN, and infinity.

    >>> read_numbers(["1", 2.5], "a box")
    [1.0, 2.5]
    """
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected finite numbers as {what}, got {_short(values)}") from None
    if not all(abs(number) < _FARTHEST for number in numbers):  # NaN is not either
        raise ValueError(f"expected finite numbers as {what}, got {_short(values)}")
    return numbers


def read_list(value: Any, what: str) -> list[Any]:
    """Return a list of a file, ``null`` as an empty one; raises ValueError for anything else, such as a text.

    >>> read_list(None, "shapes"), read_list(["a"], "shapes")
    ([], ['a'])
    """
    if value is not None and not isinstance(value, list):
        raise ValueError(f"expected {what} as a list, got {_short(value)}")
    return value or []


def read_objects(value: Any, what: str) -> list[dict[str, Any]]:
    """Return a list of objects of a file; raises ValueError where it is none, or holds anything else.

    >>> read_objects([{"id": 1}], "annotations")
    [{'id': 1}]
    """
    objects = read_list(value, what)
    odd = next((k for k, one in enumerate(objects) if not isinstance(one, dict)), None)
    if odd is not None:
        raise ValueError(f"expected {what} as objects, got {_short(objects[odd])} as number {odd + 1}")
    return objects


def _short(values: object) -> str:
    return f"{values!r:.60}"


def read_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Return a size (H, W) that an annotation file claims; raises InputError for one below 1 x 1 or over ``MOST_PIXELS``.

    >>> read_size("30", 40.0, "a.xml")
    (30, 40)
    """
    try:
        sides = [float(side) for side in (height, width) if not isinstance(side, bool)]
        sound = len(sides) == 2 and all(side >= 1 and side == int(side) for side in sides)
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise InputError(f"expected a width and a height of at least one pixel in {where}, got {width!r:.30} x {height!r:.30}")
    if sides[0] * sides[1] > MOST_PIXELS:
        raise InputError(
            f"expected an image of at most {MOST_PIXELS:,} pixels in {where}, got {width!r:.30} x {height!r:.30}; "
            "correct the size"
        )
    return int(sides[0]), int(sides[1])


def order_box(corners: Iterable[Any], passed: PassedOver, place: Place) -> Box:
    """Return a box x0 y0 x1 y1 of two corners in order, and say so where they were swapped; raises ValueError as above.

    >>> order_box([15, 13, 5, 5], PassedOver(), ("a.xml", "object 1"))
    (5.0, 5.0, 15.0, 13.0)
    """
    numbers = read_numbers(corners, "a box")
    if len(numbers) != 4:
        raise ValueError(f"expected four numbers as a box, got {_short(numbers)}")
    x0, y0, x1, y1 = numbers
    if x1 < x0 or y1 < y0:
        passed.fix(*place, "corners of a box in the wrong order, put in order")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def tell_names_apart(classes: Sequence[tuple[Id, str, str]], passed: PassedOver, place: Place) -> dict[Id, str]:
    """Return names by id of classes (id, name, more): where two have one name, the later gets ``more`` in brackets.

    >>> tell_names_apart([(1, "dog", "animal"), (2, "dog", "toy")], PassedOver(), ("a.json", "categories"))
    {1: 'dog', 2: 'dog (toy)'}
    """
    taken: set[str] = set()
    names: dict[Id, str] = {}
    for id_, name, more in classes:
        ways = (name, f"{name} ({more})", f"{name} ({id_})", *(f"{name} ({id_}, {k})" for k in range(2, len(classes) + 2)))
        names[id_] = next(way for way in ways if way not in taken)
        taken.add(names[id_])
        if names[id_] != name:
            passed.fix(*place, f"the name {name!r} a second time, for {id_!r}, which is called {names[id_]!r}")
    return names


def find_image(root: Path, name: str) -> Path | None:
    """Return the image of a name below ``root``: as it stands, with forward slashes, or in another Unicode form; else None.

    A name whose odd bytes were written as %XX is found, too.  Of an absolute name, of Windows too, it is the longest end that
    is there.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    whole = path.is_absolute() or bool(PureWindowsPath(name).drive)
    ends: list[PurePosixPath] = (
        [PurePosixPath(*path.parts[k:]) for k in range(1, len(path.parts))] if whole else [PurePosixPath(name), path]
    )
    for end in ends:
        forms = [str(end), *(unicodedata.normalize(kind, str(end)) for kind in ("NFC", "NFD"))]
        for form in forms + [decode_name(str(end))] * ("%" in str(end)):
            if (found := root / form).is_file():
                return found
    return None


def read_image_size(place: Path) -> tuple[int, int]:
    """Return the size (H, W) of an image turned upright, from its head alone; raises InputError if it is none."""
    import PIL.Image

    try:
        with PIL.Image.open(place) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
    except Exception as problem:  # a broken file makes the parsers trip over anything
        raise InputError(f"expected an image at {place}, but it cannot be read: {' '.join(str(problem).split())}") from None
    return (width, height) if turned else (height, width)


def normalize_id(value: Any) -> str:
    """Return what an id is looked up by, so that 1, 1.0 and "1" are one; raises ValueError for what is no id.

    >>> normalize_id(1), normalize_id(1.0), normalize_id(" 1"), normalize_id("x1")
    ('1', '1', '1', 'x1')
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ValueError(f"expected an id as a number or a text, got {value!r:.60}")
    return str(int(value)) if value == int(value) else str(value)


def check_segmentation(drawn: Any, size: tuple[int, int], passed: PassedOver, place: Place) -> Any:
    """Return a segmentation where it had to be put right, such as a flat polygon or run lengths like 8.0; else None.

    Raises ValueError for points that are no finite pairs, and for run lengths that are damaged or of another size than (H, W).
    """
    from annofree.ops.rle import compute_rle_length

    if not drawn:
        return None
    if isinstance(drawn, list):
        return _check_polygons(drawn, passed, place)
    if not isinstance(drawn, dict) or not {"size", "counts"} <= drawn.keys():
        raise ValueError(f"expected polygons or run lengths as segmentation, got {drawn!r:.60}")
    counts, (height, width) = drawn["counts"], size
    if not isinstance(drawn["size"], list) or drawn["size"] != [height, width]:
        raise ValueError(f"expected run lengths of the size (H, W) {size} of the image, got {drawn['size']!r:.40}")
    plain = isinstance(counts, list)
    if not plain and not (isinstance(counts, str) and counts.isascii()):
        raise ValueError(f"expected run lengths as a text or as numbers, got {counts!r:.40}")
    numbers = [int(n) for n in counts] if plain else []
    if plain and (min(numbers, default=-1) < 0 or any(n != m for n, m in zip(numbers, counts, strict=True))):
        raise ValueError(f"expected run lengths as whole numbers from 0, got {counts!r:.60}")
    total = sum(numbers) if plain else compute_rle_length(drawn)
    if total != height * width:
        raise ValueError(f"expected run lengths that add up to {height} x {width} pixels, got {total}")
    return {**drawn, "counts": numbers} if plain and not all(type(n) is int for n in counts) else None


def _check_polygons(drawn: list[Any], passed: PassedOver, place: Place) -> list[Any] | None:
    flat = not isinstance(drawn[0], list)
    polygons = [drawn] if flat else drawn
    for points in polygons:
        if not isinstance(points, list) or len(points) % 2:
            raise ValueError(f"expected polygons as lists of x y x y ..., got {points!r:.60}")
        if points and not (
            abs(sum(points)) < _FARTHEST_POINT and max(points) < _FARTHEST_POINT and min(points) > -_FARTHEST_POINT
        ):
            raise ValueError(f"expected finite points of polygons, got {points!r:.60}")
    thin = sum(len(points) < _FEWEST_NUMBERS for points in polygons)
    if thin:
        passed.fix(*place, f"{thin} of its polygons have fewer than three points, and are left out")
    return [p for p in polygons if len(p) >= _FEWEST_NUMBERS] if flat or thin else None
