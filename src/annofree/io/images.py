"""Images from files and folders, as people have them: rotated, transparent, gray, 16-bit, animated, broken."""

from __future__ import annotations

import os
import stat
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
from annofree.structures import Image

__all__ = [
    "SUFFIXES",
    "convert_pillow",
    "decode_bytes",
    "decode_image",
    "find_common_folder",
    "find_images",
    "read_image",
    "silence_pillow",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# Named, because Pillow would otherwise try every format it knows on any file, and hand PostScript to Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_READABLE = "jpg, png, webp, bmp, tiff or gif"

_STRIP = 1 << 18  # bytes
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


def find_images(inputs: Sequence[Path], *, exclude: Path | None = None) -> list[Path]:
    """List the images that ``inputs``, files and folders, stand for, each once.

    Folders are searched at every depth, in sorted order, by the ending of the name; hidden files and folders are passed
    over, and so is ``exclude``, the folder that results go to.  A file given outright is taken whatever it is called, for
    its content decides.  Raises InputError when an input is missing or a folder holds no image.
    """
    if not inputs:
        raise InputError("expected at least one picture or folder of pictures, got none; name one, for example photos/")
    found: dict[Path, Path] = {}
    for given in inputs:
        for path in _images_of(given, exclude):
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
    try:
        with path.open("rb") as file:
            return _decoded(file, os.fstat(file.fileno()).st_size, str(path), id)
    except OSError as problem:
        raise ImageError(_complaint(str(path), problem)) from problem


def decode_bytes(data: bytes, place: str, id: str | None = None) -> Image:  # noqa: A002
    """Read an image from the bytes of its file as ``decode_image`` does; ``place`` is what errors call it."""
    return _decoded(BytesIO(data), len(data), place, id)


def _decoded(file: BinaryIO, size: int, place: str, id: str | None) -> Image:  # noqa: A002
    if not size:
        raise ImageError(f"expected a picture, but {place} is empty (0 bytes); copy it again or leave it out")
    try:
        with PIL.Image.open(file, formats=_FORMATS) as image:
            image.load()
            pixels = convert_pillow(image)
    except Exception as problem:  # a broken file makes Pillow's parsers trip over anything: struct.error, KeyError ...
        raise ImageError(_complaint(place, problem)) from problem
    return Image(pixels, place if id is None else id)


def convert_pillow(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a Pillow image as RGB (H, W, 3): upright, transparency laid over white, 16 bits scaled."""
    return _pixels(_rgb(_upright(image)))


def _complaint(path: str, problem: Exception) -> str:
    if isinstance(problem, PIL.UnidentifiedImageError):
        return f"expected a picture ({_READABLE}), but {path} holds something else; convert it or leave it out"
    if isinstance(problem, PIL.Image.DecompressionBombError):
        most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"expected a picture of at most {most:.0f} million pixels, but {path} declares more; make it smaller first"
    if isinstance(problem, OSError) and problem.strerror:
        return f"expected a picture at {path}, but it cannot be opened: {problem.strerror}"
    why = " ".join(str(problem).split()) or type(problem).__name__
    return f"expected a whole picture, but {path} is damaged, cut short or of a rare kind ({why}); copy or convert it again"


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # torn metadata are no reason to lose the image (and why ImageOps.exif_transpose is not used)
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = PIL.Image.new("RGBA", layer.size, "white")
        return PIL.Image.alpha_composite(paper, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies


def _pixels(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Copy an RGB image to an array that is its own, (H, W, 3), by strips that fit the cache.

    ``np.array`` goes through bytes of the whole image, three passes over memory that cost half as much as decoding.
    """
    width, height = image.size
    pixels, rows = np.empty((height, width, 3), np.uint8), max(1, _STRIP // (3 * width))
    for top in range(0, height, rows):
        end = min(height, top + rows)
        pixels[top:end] = np.asarray(image.crop((0, top, width, end)))
    return pixels


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Scale by the smallest usual full scale that holds every value, or else by the largest value."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0)
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    full = next((u for u in usual if values.max() <= u), values.max())
    return PIL.Image.fromarray(np.rint(values.clip(0, full) * (255 / full)).astype(np.uint8))


def _images_of(given: Path, exclude: Path | None) -> list[Path]:
    try:
        mode = given.stat().st_mode
    except OSError as problem:
        raise InputError(f"expected a picture or a folder at {given}: {problem.strerror}; check the spelling") from None
    if stat.S_ISREG(mode):
        return [given]
    if not stat.S_ISDIR(mode):
        raise InputError(f"expected a picture or a folder, but {given} is neither; give a file or a folder")
    files = _files_under(given, exclude)
    images = sorted(f for f in files if f.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(
            f"expected pictures ({_READABLE}) in the folder {given}, found none among {len(files)} files; "
            "give another folder, or name the files"
        )
    return images


def _files_under(folder: Path, exclude: Path | None) -> list[Path]:
    """List visible files; a link to nowhere is kept, so that reading it names it, but no pipe, which would hang."""
    left_out = exclude.resolve() if exclude else None
    files: list[Path] = []
    for name, folders, names in os.walk(folder, onerror=_refuse):
        here = Path(name)
        folders[:] = [f for f in folders if not f.startswith(".") and (here / f).resolve() != left_out]
        files += [here / n for n in names if not n.startswith(".") and ((here / n).is_file() or (here / n).is_symlink())]
    return files


def _refuse(problem: OSError) -> None:
    raise InputError(f"expected a folder that can be listed, but {problem.filename} cannot: {problem.strerror}") from None


def _place(path: Path) -> Path:
    """Tell whether two paths are one file; a link to an image is an image of its own."""
    return path.parent.resolve() / path.name
