"""Label maps as files: one PNG of class indices an image, and ``classes.json`` that says what the indices mean.

Up to 255 names are written as 8-bit palette PNGs, void 255, which all viewers show in color and all dataset tools
reads; beyond that as 16-bit gray PNGs, void 65535.  In memory void is -1.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.regular import require_regular
from annofree.ops.palette import Color, assign_colors
from annofree.structures import VOID, LabelMap

__all__ = [
    "CLASSES_FILE",
    "VOID_COLOR",
    "ClassList",
    "assign_label_colors",
    "choose_void_index",
    "read_indices",
    "read_label_map",
    "save_label_map",
    "write_label_map",
]

CLASSES_FILE = "classes.json"
_EIGHT_BITS, _SIXTEEN_BITS = 255, 65535
VOID_COLOR: Color = (224, 224, 192)
"""The usual cream of void, VOC's color of 255, which no name has."""

_DEPTH_AT, _KIND_AT = 24, 25  # bytes of a PNG: bits a value, and 0 for gray
_SUBSAMPLED = {"1": 1, "L": 255}


@dataclass(frozen=True)
class ClassList:
    """The classes of a folder of label maps: ``names``, the ``background`` name, and the ``void`` index.

    Raises InputError for no names, for duplicates, for a background outside the names, and for a void that
    is also a name's index.
    """

    names: tuple[str, ...]
    background: int | None = None
    void: int = _EIGHT_BITS

    def __post_init__(self) -> None:
        doubled = sorted(name for name, times in Counter(self.names).items() if times > 1)
        if not self.names or doubled:
            raise InputError(f"expected names, each once, got {f'{doubled} more than once' if doubled else 'none'}")
        if self.background is not None and not 0 <= self.background < len(self.names):
            raise InputError(f"expected background as an index below {len(self.names)} or null, got {self.background}")
        if 0 <= self.void < len(self.names):
            raise InputError(f"expected void apart from the indices 0 to {len(self.names) - 1}, got {self.void}")

    @classmethod
    def of(cls, label_map: LabelMap) -> ClassList:
        """Return the class list for the file of a label map."""
        return cls(label_map.names, label_map.background, choose_void_index(len(label_map.names)))

    def write(self, folder: Path, colors: npt.NDArray[np.uint8] | None = None) -> None:
        """Write ``classes.json`` into a folder, which is created if needed; ``colors`` as in ``write_label_map``."""
        make_folder(folder)
        rgb = assign_label_colors(self.names, self.background) if colors is None else colors
        about = {"names": self.names, "background": self.background, "void": self.void, "palette": rgb.tolist()}
        write_json(folder / CLASSES_FILE, about, indent=None)

    @classmethod
    def read(cls, folder: Path) -> ClassList:
        """Read ``classes.json`` of a folder; raises InputError if it is missing or invalid."""
        path = folder / CLASSES_FILE
        shape = '{"names": ["background", "dog"], "background": 0, "void": 255}'
        try:
            data = json.loads(require_regular(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"expected {CLASSES_FILE} beside the label maps in {folder}, which says what their indices mean, "
                f"and there is none; write one, like {shape}"
            ) from None
        except OSError as problem:
            raise InputError(f"expected a readable file at {path}: {problem.strerror}") from None
        except ValueError as problem:
            raise InputError(f"expected JSON like {shape} in {path}, but it is not JSON: {problem}") from None
        if not _is_class_list(data):
            raise InputError(f"expected JSON like {shape} in {path}, got {str(data)[:80]}")
        names = tuple(data["names"])
        return cls(names, data.get("background"), data.get("void", choose_void_index(len(names))))


def _is_class_list(data: Any) -> bool:
    if not isinstance(data, dict) or not isinstance(data.get("names"), list):
        return False
    numbers = (data.get("background"), data.get("void"))
    whole = all(n is None or (isinstance(n, int) and not isinstance(n, bool)) for n in numbers)
    return whole and all(isinstance(name, str) for name in data["names"]) and data.get("void", 0) is not None


def choose_void_index(count: int) -> int:
    """Return the void index of files with ``count`` names: 255, or 65535 for 16 bits.

    >>> choose_void_index(255), choose_void_index(256)
    (255, 65535)
    """
    if count > _SIXTEEN_BITS:
        raise InputError(f"expected at most {_SIXTEEN_BITS} names in a label map file, got {count}")
    return _EIGHT_BITS if count <= _EIGHT_BITS else _SIXTEEN_BITS


def assign_label_colors(names: Sequence[str], background: int | None = None) -> npt.NDArray[np.uint8]:
    """Return one color a name (K, 3) uint8: that of the run, black for the background, which takes no place in the palette.

    >>> assign_label_colors(["background", "dog"], background=0).tolist(), assign_label_colors(["dog"]).tolist()
    ([[0, 0, 0], [0, 114, 178]], [[0, 114, 178]])
    """
    known = assign_colors(name for k, name in enumerate(names) if k != background)
    rows = [(0, 0, 0) if k == background else known[name] for k, name in enumerate(names)]
    return np.array(rows, np.uint8).reshape(-1, 3)


def write_label_map(path: Path, label_map: LabelMap, colors: npt.NDArray[np.uint8] | None = None) -> None:
    """Write a label map as a PNG of indices, atomically; ``ClassList.of`` has the names that belong to it.

    ``colors`` (K, 3) are the palette; default ``assign_label_colors``.
    """
    void = choose_void_index(len(label_map.names))
    indices = np.where(label_map.labels == VOID, void, label_map.labels)
    if void == _EIGHT_BITS:
        image = PIL.Image.fromarray(indices.astype(np.uint8))
        image.putpalette(_palette(assign_label_colors(label_map.names, label_map.background) if colors is None else colors))
    else:
        image = PIL.Image.fromarray(indices.astype(np.uint16))
    write_atomic(path, lambda temporary: image.save(temporary, "PNG"))


def save_label_map(path: Path, label_map: LabelMap) -> None:
    """Write a label map and the ``classes.json`` of its folder, which is created if needed.

    Raises InputError for another suffix than .png, and if an existing ``classes.json`` differs.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"expected a label map's file to end in .png, for that is what it is, got {path.name}")
    classes, folder = ClassList.of(label_map), path.parent
    if not (folder / CLASSES_FILE).exists():
        classes.write(folder)
    elif (known := ClassList.read(folder)) != classes:
        raise InputError(
            f"expected the names and the background that {folder / CLASSES_FILE} has, {list(known.names)!r:.200}, got "
            f"{list(classes.names)!r:.200}; save label maps of other names into a folder of their own"
        )
    write_label_map(path, label_map)


def _palette(colors: npt.NDArray[np.uint8]) -> bytes:
    """256 colors in a row: the names', black, and void's."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[_EIGHT_BITS] = VOID_COLOR
    return table.tobytes()


def read_label_map(path: Path, classes: ClassList) -> LabelMap:
    """Read a label map with the given ``classes``.

    Raises InputError for a file without indices (see ``read_indices``) and for unknown indices.
    """
    indices = read_indices(path)
    known = (indices >= 0) & (indices < len(classes.names))
    strange = np.unique(indices[~known & (indices != classes.void)])
    if strange.size:
        raise InputError(
            f"expected indices from 0 to {len(classes.names) - 1}, or {classes.void} for void, in {path}, "
            f"got {', '.join(map(str, strange[:10]))}; is it another data set's, or is {CLASSES_FILE} too short?"
        )
    labels = np.where(known, indices, VOID).astype(np.int32)
    return LabelMap(labels, classes.names, classes.background)


def read_indices(path: Path) -> npt.NDArray[np.int32]:
    """Read a PNG of indices, (H, W) int32, as they stand in the file: palette or gray, of 1 to 16 bits.

    Raises InputError when there is no such file, when it is damaged, and for color images, which hold no indices.
    """
    try:
        with require_regular(path).open("rb") as file:
            head = file.read(26)
            file.seek(0)
            with PIL.Image.open(file, formats=("PNG",)) as image:
                image.load()
                mode, values = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"expected a label map at {path}, and there is no such file; check the folder") from None
    except Exception as problem:  # a broken file makes the parser trip over anything
        why = " ".join(str(problem).split()) or type(problem).__name__
        raise InputError(f"expected a label map as a PNG, but {path} cannot be read as one ({why})") from None
    if values.ndim != 2 or mode not in ("1", "L", "P", "I;16", "I"):
        raise InputError(
            f"expected a PNG of class indices, palette or grey, but {path} is in colour (mode {mode}); "
            "write the index of each pixel's class in place of its colour"
        )
    return values.astype(np.int32) // _scale(mode, head)


def _scale(mode: str, head: bytes) -> int:
    """How much Pillow multiplies gray values of 2 and 4 bits by, to fill 8."""
    depth, gray = head[_DEPTH_AT], head[_KIND_AT] == 0
    full = _SUBSAMPLED.get(mode, 0)
    return full // (2**depth - 1) if gray and depth < 8 and full else 1
