"""Where a YOLO data set has its images and labels, by the rules that YOLO itself follows.

``data.yaml`` names folders or lists of images, relative to ``path`` or to itself; of a name that begins with ``../`` the rest
is looked for below too.  The labels of an image stand where the last folder called ``images`` in its path is called ``labels``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.formats.passed_over import PassedOver
from annofree.io.image_files import SUFFIXES
from annofree.io.text import read_text

__all__ = ["Sources", "note_labels_alone"]

_SPLITS = {"train": True, "val": True, "test": False}  # whether one that is named has to be there
_NO_PICTURES = (".txt", ".json", ".yaml", ".yml", ".cache", ".npy", ".xml", ".md", ".csv", "")
_FEWEST_WORDS = 5  # of a line of labels


@dataclass
class Sources:
    """The images and labels that ``data`` of the file ``place`` names; ``images`` is their folder, if they are elsewhere.

    Iterating gives (name, image, labels): the name is below ``images`` where that is given and holds the image, else below the
    deepest folder that holds all that is named; labels may not be there.  Raises InputError where no image is found at all.
    """

    place: Path
    data: dict[str, Any]
    images: Path | None
    passed: PassedOver
    absent: int = field(default=0, init=False)
    used: set[Path] = field(default_factory=set, init=False)

    def __iter__(self) -> Iterator[tuple[str, Path, Path]]:
        self.absent, self.used = 0, set()
        found = dict(self._found())
        if not found:
            raise InputError(
                f"expected images where {self.place} says, {self._named()}, and there are none; "
                "give --image-root if they are elsewhere"
            )
        root = self._root(found)
        for image, (folder, entry) in found.items():
            labels, name = self._labels(image, folder, entry), _name(image, folder, self.images, root)
            self._count(labels, name)
            yield name, image, labels

    def _named(self) -> str:
        return ", ".join(f"{split}: {entry}" for split, entry in self._entries()) or "which names no folder"

    def _entries(self) -> list[tuple[str, str]]:
        given = {split: self.data.get(split) for split in _SPLITS}
        listed = ((split, one) for split, some in given.items() for one in (some if isinstance(some, list) else [some]) if one)
        return list(dict.fromkeys((split, str(one)) for split, one in listed))

    @property
    def _bases(self) -> list[Path]:
        """Folders that entries may count from, the likeliest first."""
        here = self.place.parent
        return list(dict.fromkeys([here / str(self.data.get("path") or ""), here]))

    def _found(self) -> Iterator[tuple[Path, tuple[Path, str]]]:
        """Each image once, with the folder that was named and how."""
        seen: set[Path] = set()
        for split, entry in self._entries():
            root = self._locate(entry)
            if root is None:
                tell = self.passed.refuse if _SPLITS[split] else self.passed.note
                tell(self.place, split, f"names {entry}, which is not there", "named folders")
                continue
            for image in _list_images(root, self._bases, self.passed):
                if image not in seen:
                    seen.add(image)
                    yield image, (root.parent if root.is_file() else root, entry)

    def _locate(self, entry: str) -> Path | None:
        below = entry
        while below.startswith("../"):
            below = below[3:]
        near = [_normal(base / name) for base in self._bases for name in (entry, below)]
        if self.images is None:
            return next((place for place in near if place.exists()), None)
        own = [_normal(self.images / name) for name in (entry, below)]
        whole, base = _normal(self.images), _normal(self.place.parent)
        apart = not (whole.is_relative_to(base) or base.is_relative_to(whole))
        ways = own + ([whole] if apart else []) + near + [whole]
        return next((place for place in ways if place.exists()), None)

    def _root(self, found: dict[Path, tuple[Path, str]]) -> Path:
        folders = {str(folder) for folder, _ in found.values()}
        return Path(os.path.commonpath(folders))

    def _labels(self, image: Path, folder: Path, entry: str) -> Path:
        """The label file of an image: by the rule, else as if the image were where data.yaml says, else beside it."""
        ways = [_swap(image)]
        if image.is_relative_to(folder):
            inside = image.relative_to(folder)
            ways += [_swap(_normal(base / entry / inside)) for base in self._bases]
        if "images" not in image.relative_to(folder.parent if image.is_relative_to(folder.parent) else image.anchor).parts[:-1]:
            ways.append(image.with_suffix(".txt"))
        return next((place for place in ways if place.is_file()), ways[0])

    def _count(self, labels: Path, name: str) -> None:
        if labels in self.used:
            self.passed.fix(labels, "", f"read again, for a second image, {name}")
        if labels.is_file():
            self.used.add(labels)
        else:
            self.absent += 1


def _normal(place: Path) -> Path:
    return Path(os.path.normpath(Path.cwd() / place))


def _swap(image: Path) -> Path:
    """The labels of an image: the last folder called images is called labels; where there is none, they are beside it."""
    parts = list(image.with_suffix(".txt").parts)
    at = max((k for k, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts)


def _name(image: Path, folder: Path, images: Path | None, root: Path) -> str:
    for base in ([_normal(images)] if images is not None else []) + [root, folder]:
        if image.is_relative_to(base):
            return image.relative_to(base).as_posix()
    return image.name


def _list_images(root: Path, bases: list[Path], passed: PassedOver) -> Iterator[Path]:
    """The images of a folder, or of a list of images."""
    if root.is_dir():
        for place in sorted(p for p in root.rglob("*") if p.is_file()):
            if place.suffix.lower() in SUFFIXES:
                yield place
            elif place.suffix.lower() not in _NO_PICTURES:
                passed.note(place, "", f"not read, for images end in {', '.join(SUFFIXES)}", "files")
    elif root.suffix.lower() in SUFFIXES:
        yield root
    else:
        for number, line in enumerate(read_text(root).splitlines(), 1):
            if name := line.strip().replace("\\", "/"):
                ways = [_normal(base / name) for base in (root.parent, *bases)]
                listed = next((way for way in ways if way.is_file()), None)
                if listed is None:
                    passed.refuse(root, f"line {number}", f"names {name}, which is not there", "pictures")
                else:
                    yield listed


def note_labels_alone(used: set[Path], passed: PassedOver) -> None:
    """Count the lines of label files that stand beside the ``used`` ones, but belong to no image."""
    folders = {place.parent for place in used if "labels" in place.parts}
    for folder in sorted(folders):
        for place in sorted(folder.glob("*.txt")):
            if place not in used and (count := _count_lines(place)):
                passed.note(place, "", "a label file without an image", count=count)


def _count_lines(place: Path) -> int:
    try:
        lines = [line.split() for line in read_text(place).splitlines()]
    except (OSError, InputError):
        return 0
    return sum(len(words) >= _FEWEST_WORDS and words[0].replace(".", "").isdigit() for words in lines)
