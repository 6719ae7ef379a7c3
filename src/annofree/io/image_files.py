"""Which files of a folder or a tar are images, by their names or else their first bytes, and what became of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import PIL.Image

from annofree.errors import InputError
from annofree.io.text import clean_text

__all__ = ["HEAD", "SUFFIXES", "OtherFiles", "classify_file", "is_tar", "read_head", "stream_images"]

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
)
"""Endings of images, in small letters."""

HEAD = 32
"""Bytes at the start of a file that tell what it is."""

_HEIF = (".heic", ".heif", ".hif")
_UNREADABLE = (
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".psd", ".psb", ".xcf", ".svg", ".svgz", ".eps", ".ai"),
    *(".exr", ".hdr", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".jxl", ".jxr", ".wdp", ".jls", ".ico", ".cur", ".pcx", ".dcm"),
    *(".nii", ".fits", ".fit", ".pdf", ".djvu", ".bpg", ".qoi", ".dds", ".sgi", ".rgb", ".ras", ".wmf", ".emf", ".cdr"),
)
_ARCHIVES = (".zip", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_OTHERS = (
    *(".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".csv", ".tsv", ".md", ".html", ".htm", ".css", ".js", ".py", ".ini"),
    *(".npy", ".npz", ".pt", ".pth", ".pkl", ".safetensors", ".parquet", ".cls", ".log", ".toml", ".ipynb", ".db", ".lock"),
)
_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    *(b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
_MOST_NAMED = 20


class OtherFiles:
    """Files that were passed over though they may be images: how many for which reason, and the names of the first.

    >>> others = OtherFiles()
    >>> others.add("an archive, which has to be unpacked", "a.zip")
    >>> others.format_lines()
    ['passed over 1 file (an archive, which has to be unpacked): a.zip']
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count a file, and keep its name if it is among the first of its reason."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.names.setdefault(reason, [])
        if len(named) < _MOST_NAMED:
            named.append(name)

    def clear(self) -> None:
        """Forget all."""
        self.counts.clear()
        self.names.clear()

    def format_lines(self) -> list[str]:
        """Say how many were passed over for which reason, a line each."""
        lines = []
        for reason, count in self.counts.items():
            names = self.names[reason]
            more = f" and {count - len(names)} more" if count > len(names) else ""
            lines.append(f"passed over {count} file{'s' * (count > 1)} ({reason}): {', '.join(map(clean_text, names))}{more}")
        return lines


def is_tar(name: str) -> bool:
    """Tell whether a file is a tar, by its name."""
    return name.lower().endswith(".tar")


def classify_file(name: str, read_head: Callable[[], bytes]) -> str | None:
    """Tell what a file is: "" an image, None something else, and any other text is why it cannot be taken as an image.

    The name decides, and where it says nothing the first ``HEAD`` bytes do, which ``read_head`` returns or raises OSError.

    >>> classify_file("a.JFIF", bytes), classify_file("photo", lambda: b"GIF89a"), classify_file("notes.txt", bytes)
    ('', '', None)
    """
    lower = name.lower()
    if lower.endswith(SUFFIXES):
        return ""
    if name.startswith(".") or lower.endswith(_OTHERS) or is_tar(name):
        return None
    if lower.endswith(_HEIF):
        return _judge_heif()
    if lower.endswith(_UNREADABLE):
        return f"{lower[lower.rindex('.') :]} is a kind that cannot be read; convert it to jpg or png"
    if lower.endswith(_ARCHIVES):
        return "an archive, which has to be unpacked"
    try:
        return _judge_head(read_head())
    except OSError as problem:
        return f"cannot be opened: {problem.strerror or problem}"


def _judge_heif() -> str:
    """Pillow reads HEIF where a plugin, such as pillow-heif, has been registered."""
    return "" if "HEIF" in PIL.Image.OPEN else "HEIF cannot be read without a plugin for Pillow; convert it to jpg"


def _judge_head(head: bytes) -> str | None:
    if head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] in (b"ftypavif", b"ftypavis"):
        return ""
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return ""
    return _judge_heif() if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc") else None


def stream_images(top: Path, exclude: Path | None = None, others: OtherFiles | None = None) -> Iterator[tuple[str, str]]:
    """Yield folder and name of each image and tar below a folder, in sorted order.

    Hidden files and folders are passed over, and so is ``exclude``; ``others`` is told of all else that may be an image.
    Raises InputError for a folder that cannot be listed.
    """
    others = OtherFiles() if others is None else others
    for folder, below, names in os.walk(top, onerror=_refuse):
        below[:] = sorted(b for b in below if not b.startswith(".") and Path(folder, b) != exclude)
        for name in below:
            if os.path.islink(path := os.path.join(folder, name)):  # noqa: PTH114, PTH118 -- by the million
                others.add("a link to a folder, which is not followed; name the folder itself", path)
        for name in sorted(names):
            if not name.startswith(".") and _is_taken(os.path.join(folder, name), name, others):  # noqa: PTH118
                yield folder, name


def _is_taken(path: str, name: str, others: OtherFiles) -> bool:
    if name.lower().endswith(_OTHERS):
        return False  # at once, by the million
    # A link to nowhere is kept, so that reading it names it, but no pipe, which would hang.
    regular = os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))  # noqa: PTH110, PTH113, PTH114
    judgment = "" if is_tar(name) else classify_file(name, partial(read_head, path) if regular else bytes)
    if judgment == "" and not regular:
        judgment = "a pipe, a device or a socket"
    if judgment:
        others.add(judgment, path)
    return judgment == ""


def read_head(path: str) -> bytes:
    """Read the first ``HEAD`` bytes of a file; raises OSError where it cannot be opened."""
    with open(path, "rb") as file:  # noqa: PTH123 -- by the million
        return file.read(HEAD)


def _refuse(problem: OSError) -> None:
    raise InputError(f"expected a folder that can be listed, but {problem.filename} cannot: {problem.strerror}") from None
