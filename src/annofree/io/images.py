"""Images from files and folders, as people have them: rotated, transparent, gray, 16-bit, animated, broken."""

from __future__ import annotations

import os
import stat
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.Image import Transpose

from annofree.errors import ImageError, InputError
from annofree.io.decode_budget import acquire_memory, find_free_memory
from annofree.io.image_files import OtherFiles, is_tar, stream_images
from annofree.structures import Image

__all__ = [
    "convert_pillow",
    "decode_bytes",
    "decode_image",
    "find_common_folder",
    "find_images",
    "read_image",
    "silence_pillow",
]

# Named, because Pillow would otherwise try every format it knows on any file, and hand PostScript to Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
_PLUGINS = ("HEIF",)  # taken where somebody has registered them with Pillow
_READABLE = "jpg, png, webp, bmp, tiff, gif, avif or jp2"

_STRIP = 1 << 18  # bytes
_PIXEL = 3  # bytes that are handed on
_PILLOW, _PILLOWS = 4, {"1": 1, "L": 1, "P": 1, "I;16": 2}  # bytes of a pixel of Pillow's, and where they are others
_LARGE = 1 << 24  # pixels, from which on memory is looked at
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS, _FROM_END = (5, 6, 7, 8), (3, 4, 6, 7)  # rows become columns; the first becomes the last

# Full scales of whole numbers of 8, 10, 12, 14 and 16 bits, and of floats.
_WHOLE_SCALES, _FLOAT_SCALES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0), (1.0, 255.0, 65535.0)


def find_images(inputs: Sequence[Path], *, exclude: Path | None = None, others: OtherFiles | None = None) -> list[Path]:
    """List the images that ``inputs``, files and folders, stand for, each once.

    Folders are searched at every depth, in sorted order, as ``classify_file`` tells; hidden files and folders are passed
    over, and so is ``exclude``, the folder that results go to.  A file given outright is taken whatever it is called, for
    its content decides.  ``others`` is told of what else may be an image.  Raises InputError when an input is missing or a
    folder holds no image.
    """
    if not inputs:
        raise InputError("expected at least one image or folder of images, got none; name one, for example photos/")
    found: dict[Path, Path] = {}
    for given in inputs:
        for path in _images_of(given, exclude, OtherFiles() if others is None else others):
            found.setdefault(_place(path), path)
    return list(found.values())


def find_common_folder(inputs: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all inputs; an input that is a folder holds itself.

    >>> find_common_folder([Path("/photos/a/1.jpg"), Path("/photos/b/2.jpg")]).as_posix()
    '/photos'
    """
    folders = [(path if path.is_dir() else path.parent).resolve() for path in inputs]
    return next(f for f in (folders[0], *folders[0].parents) if all(other.is_relative_to(f) for other in folders))


def read_image(path: str | Path, id: str | None = None) -> Image:  # noqa: A002 -- the word the noun uses
    """Read an image as upright RGB uint8 (H, W, 3), named ``id`` or else by its path.

    EXIF orientation is applied; transparency is laid over white; 16-bit values are scaled, not clipped; of an animation
    or of several pages the first is taken.  Raises ImageError, one line naming the file, when there is no whole image.
    """
    with silence_pillow():
        return decode_image(Path(path), id)


@contextmanager
def silence_pillow() -> Iterator[None]:
    """Keep Pillow's remarks on odd files to itself, here and only here.

    Warning filters belong to the whole process and are put back on leaving, so enter this in the main thread, around the
    threads that call ``decode_image``, never in several threads at a time.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def decode_image(path: Path, id: str | None = None) -> Image:  # noqa: A002
    """Read an image as ``read_image`` does, with Pillow's warnings let through; made for threads."""
    path = _find_form(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ImageError(f"expected an image, but {path} is a pipe, a device or a socket; leave it out")
            return _decoded(file, about.st_size, str(path), id)
    except OSError as problem:
        raise ImageError(_complaint(str(path), problem)) from problem


def _find_form(path: Path) -> Path:
    """The path, or where that is not there the same name in another Unicode form, as other systems write it."""
    name = str(path)
    if name.isascii() or path.exists():
        return path
    forms = (Path(unicodedata.normalize(kind, name)) for kind in ("NFC", "NFD"))
    return next((form for form in forms if form.exists()), path)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, and a pipe too without waiting for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode_bytes(data: bytes, place: str, id: str | None = None) -> Image:  # noqa: A002
    """Read an image from the bytes of its file as ``decode_image`` does; ``place`` is what errors call it."""
    return _decoded(BytesIO(data), len(data), place, id)


def _decoded(file: BinaryIO, size: int, place: str, id: str | None) -> Image:  # noqa: A002
    if not size:
        raise ImageError(f"expected an image, but {place} is empty (0 bytes); copy it again or leave it out")
    formats = (*_FORMATS, *(name for name in _PLUGINS if name in PIL.Image.OPEN))
    try:
        with PIL.Image.open(file, formats=formats) as image:
            _claim_room(image.size, _PIXEL + _PILLOWS.get(image.mode, _PILLOW))
            image.load()
            pixels = convert_pillow(image)
    except Exception as problem:  # a broken file makes Pillow's parsers trip over anything: struct.error, KeyError ...
        traceback.clear_frames(problem.__traceback__)  # they hold pixels
        raise ImageError(_complaint(place, problem)) from problem
    return Image(pixels, place if id is None else id)


def _claim_room(size: tuple[int, int], each: int) -> None:
    """Wait for room to decode pixels of so many bytes each; raises MemoryError where the machine has less than they take."""
    need = size[0] * size[1] * each
    acquire_memory(need)
    if size[0] * size[1] > _LARGE and need > (free := find_free_memory()):
        raise MemoryError(f"{size[0]} x {size[1]} pixels take {need / 1e9:.2f} GB to read, and {free / 1e9:.2f} GB are free")


def convert_pillow(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a Pillow image as RGB (H, W, 3): upright, transparency laid over white, 16 bits scaled.

    This is done by strips of rows that fit the cache, so that an image takes little more than itself.
    """
    (width, height), turn = image.size, _find_turn(image)
    sideways, scale = turn in _SIDEWAYS, _find_scale(image)
    pixels = np.empty((width, height, 3) if sideways else (height, width, 3), np.uint8)
    rows = max(1, _STRIP // (3 * width))
    for top in range(0, height, rows):
        end = min(height, top + rows)
        strip = _to_rgb(image.crop((0, top, width, end)), scale)
        turned = np.asarray(strip.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else strip)
        place = slice(height - end, height - top) if turn in _FROM_END else slice(top, end)
        pixels[(slice(None), place) if sideways else place] = turned
    return pixels


def _complaint(path: str, problem: Exception) -> str:
    if isinstance(problem, PIL.UnidentifiedImageError):
        return f"expected an image ({_READABLE}), but {path} holds something else; convert it or leave it out"
    if isinstance(problem, PIL.Image.DecompressionBombError):
        most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"expected an image of at most {most:.0f} million pixels, but {path} declares more; make it smaller first"
    if isinstance(problem, MemoryError):
        why = str(problem) or "memory ran out"
        return f"expected an image that fits into memory, but {path} does not ({why}); make it smaller first"
    if isinstance(problem, OSError) and problem.strerror:
        return f"expected an image at {path}, but it cannot be opened: {problem.strerror}"
    why = " ".join(str(problem).split()) or type(problem).__name__
    return f"expected a whole image, but {path} is damaged, cut short or of a rare kind ({why}); copy or convert it again"


def _find_turn(image: PIL.Image.Image) -> int:
    """The EXIF orientation, 1 where an image is upright or does not say."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # torn metadata are no reason to lose the image (and why ImageOps.exif_transpose is not used)
        return 1


def _to_rgb(image: PIL.Image.Image, scale: tuple[float, float] | None) -> PIL.Image.Image:
    if scale is not None:
        values, (low, high) = _read_values(image), scale
        eight = np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
        return PIL.Image.fromarray(eight).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = PIL.Image.new("RGBA", layer.size, "white")
        return PIL.Image.alpha_composite(paper, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies


def _find_scale(image: PIL.Image.Image) -> tuple[float, float] | None:
    """The values that become 0 and 255, of an image of whole numbers or floats, None of any other.

    That is the smallest usual full scale that holds every value, or else the largest value; and from the least value on where
    some are below 0 by more than a step.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    width, height = image.size
    rows = max(1, _STRIP // (8 * width))
    strips = (_read_values(image.crop((0, top, width, min(height, top + rows)))) for top in range(0, height, rows))
    ends = [(values.min(), values.max()) for values in strips]
    low, high = float(min(least for least, _ in ends)), float(max(most for _, most in ends))
    usual = _FLOAT_SCALES if image.mode == "F" else _WHOLE_SCALES
    full = next((scale for scale in usual if high <= scale), high)
    return (low, max(high, low + 1)) if low < -full / 255 else (0.0, full)


def _read_values(image: PIL.Image.Image) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)


def _images_of(given: Path, exclude: Path | None, others: OtherFiles) -> list[Path]:
    try:
        mode = given.stat().st_mode
    except OSError as problem:
        raise InputError(f"expected an image or a folder at {given}: {problem.strerror}; check the spelling") from None
    if stat.S_ISREG(mode):
        return [given]
    if not stat.S_ISDIR(mode):
        raise InputError(f"expected an image or a folder, but {given} is neither; give a file or a folder")
    found = stream_images(given, exclude.resolve() if exclude else None, others)
    images = sorted(Path(folder, name) for folder, name in found if not is_tar(name))
    if not images:
        count = sum(len(names) for _, _, names in os.walk(given))
        why = "".join(f"; {line}" for line in others.format_lines())
        raise InputError(
            f"expected images ({_READABLE}) in the folder {given}, found none among {count} files{why}; "
            "give another folder, or name the files"
        )
    return images


def _place(path: Path) -> Path:
    """Tell whether two paths are one file; a link to an image is an image of its own."""
    return path.parent.resolve() / path.name
