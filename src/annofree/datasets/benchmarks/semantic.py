"""Data sets with a name for every pixel: where the images are, and how to read the truth of each when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.formats.label_maps import read_indices
from annofree.io.images import read_image
from annofree.structures import VOID, Image, LabelMap

__all__ = [
    "Labels",
    "SemanticDataset",
    "SemanticSample",
    "read_binary",
    "read_lines",
    "read_mapped",
    "require_files",
    "require_folder",
]

_STRANGE = -2  # no class and not void

Labels = npt.NDArray[np.int32]
"""Class indices (H, W), VOID where nothing is scored."""


@dataclass(frozen=True)
class SemanticSample:
    """One image with its truth, both read on demand.

    ``id`` names it, and is its prediction's file name without the ending; ``image`` is the image's path, None where only
    the ground truth is available; ``read`` gives its labels.  ``asked`` are the prompts for a method, aligned with the data
    set's, where they differ from image to image (a bird's breed, say).
    """

    id: str
    image: Path | None
    read: Callable[[], Labels]
    asked: tuple[str, ...] | None = None

    def read_image(self) -> Image:
        """Read the image; raises ImageError when it cannot be, InputError when there is none."""
        if self.image is None:
            raise InputError(f"expected the image of {self.id} to run a method on; pass the folder of the images, --images")
        return read_image(self.image, self.id)


@dataclass(frozen=True)
class SemanticDataset:
    """Samples with the ``names`` that their labels index and the entry of those that is the ``background``, if any.

    ``asked`` are the prompts, aligned with ``names``.
    """

    name: str
    names: tuple[str, ...]
    background: int | None
    samples: tuple[SemanticSample, ...]
    asked: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[SemanticSample]:
        return iter(self.samples)

    def read_truth(self, sample: SemanticSample) -> LabelMap:
        """Read the ground truth of a sample."""
        return LabelMap(sample.read(), self.names, self.background)

    def with_spellings(self, spellings: Mapping[str, str]) -> SemanticDataset:
        """Return a copy with other prompts for some classes; raises InputError for an unknown class.

        >>> SemanticDataset("v", ("tvmonitor",), None, (), ("tvmonitor",)).with_spellings({"tvmonitor": "tv"}).asked
        ('tv',)
        """
        strange = sorted(set(spellings) - set(self.names))
        if strange:
            raise InputError(f"expected spellings for names of {self.name}, got one for {strange[0]!r}, which it does not have")
        return replace(self, asked=tuple(spellings.get(name, old) for name, old in zip(self.names, self.asked, strict=True)))

    def without_background(self) -> SemanticDataset:
        """Return a copy without background: its pixels become void and it is not prompted."""
        if self.background is None:
            return self
        gone = self.background
        samples = tuple(replace(s, read=_without(s.read, gone), asked=s.asked and _less(s.asked, gone)) for s in self.samples)
        return SemanticDataset(self.name, _less(self.names, gone), None, samples, _less(self.asked, gone))


def _less(names: tuple[str, ...], gone: int) -> tuple[str, ...]:
    return names[:gone] + names[gone + 1 :]


def _without(read: Callable[[], Labels], gone: int) -> Callable[[], Labels]:
    def labels() -> Labels:
        before = read()
        return np.where(before == gone, VOID, before - (before > gone)).astype(np.int32)

    return labels


def require_folder(folder: Path, layout: str) -> Path:
    """Return a required folder; raises InputError with the expected layout."""
    if not folder.is_dir():
        raise InputError(f"expected a folder at {folder}, and there is none; the layout is {layout}")
    return folder


def require_files(paths: list[Path], layout: str) -> None:
    """Raise InputError with the expected layout if any of these files is missing, or if there are none."""
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        first = f"{len(missing)} of {len(paths)} are missing, {missing[0]} among them" if missing else "none were found"
        raise InputError(f"expected the files of a data set, but {first}; the layout is {layout}")


def read_lines(path: Path, layout: str) -> list[str]:
    """Read the lines of a text file, stripped, without empty ones; raises InputError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise InputError(f"expected a list at {path}, but it cannot be read: {why}; the layout is {layout}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_mapped(path: Path, places: tuple[int, ...], void: tuple[int, ...], layout: str) -> Labels:
    """Read a label map whose class k is the value ``places[k]``, and whose ``void`` values are not scored, (H, W).

    Raises InputError for any other value, naming the file and the expected layout.
    """
    values = read_indices(path)
    known = np.full(max(*places, *void) + 1, _STRANGE, np.int32)
    known[list(places)] = np.arange(len(places))
    known[list(void)] = VOID
    labels = known[np.minimum(values, len(known) - 1)]
    strange = (labels == _STRANGE) | (values >= len(known))
    if strange.any():
        raise InputError(f"expected no index {int(values[strange][0])} in {path}, whose truth has none; the layout is {layout}")
    return labels


def read_binary(path: Path, above: int) -> npt.NDArray[np.bool_]:
    """Read a gray mask, (H, W) bool, true where the value of 8 bits is greater than ``above``.

    Raises InputError when the file is no image.
    """
    try:
        with PIL.Image.open(path) as image:
            values = np.asarray(image.convert("L"))
    except OSError as problem:
        raise InputError(f"expected a mask at {path}, but it cannot be read: {problem}") from None
    return np.asarray(values > above)
