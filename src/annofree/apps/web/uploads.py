"""Images that come over the page: checked before they are decoded, named so that they stay in their folder, written whole."""

from __future__ import annotations

import re
import threading
import unicodedata
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

import PIL.Image

from annofree.errors import ImageError
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.image_files import SUFFIXES
from annofree.io.images import decode_bytes

__all__ = ["Limits", "Uploads", "clean_name"]

_LONGEST, _MOST_BYTES = 100, 200  # letters of a name, and its bytes, of which file systems take 255
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif", "AVIF": ".avif"}


@dataclass(frozen=True)
class Limits:
    """How large what is sent may be."""

    # of one request, in all
    upload_bytes: int = 256 << 20
    # of a request without files
    json_bytes: int = 16 << 20
    # of an image
    pixels: int = 50_000_000
    # of a request
    files: int = 500
    # s, within which some of a request has to come
    patience: float = 30.0


class Uploads:
    """The folder of images that came over the page; for threads."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._turn = threading.Lock()

    def list_names(self) -> list[str]:
        """The files that are there, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            p.name for p in self.folder.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith(".")
        )

    def add(self, name: str, data: bytes) -> tuple[str, tuple[int, int]]:
        """Write an image; return its new name and its size (H, W).  Raises InputError for what is none, or too large.

        One is decoded at a time.
        """
        with self._turn:
            kind = self._check(name, data)
            size = decode_bytes(data, name).size
            make_folder(self.folder)
            place = self._find_free(clean_name(name, _ENDINGS.get(kind, ".jpg")))
            write_atomic(place, lambda temporary: temporary.write_bytes(data))
            return place.name, size

    def _check(self, name: str, data: bytes) -> str:
        """The format of an image whose head says that it is small enough."""
        if not data:
            raise ImageError("expected an image, got an empty file; choose another")
        try:
            with PIL.Image.open(BytesIO(data), formats=tuple(_ENDINGS)) as image:
                (width, height), kind = image.size, str(image.format)
        except PIL.Image.DecompressionBombError:
            raise ImageError(f"expected at most {self.limits.pixels:,} pixels, got many more; make it smaller first") from None
        except Exception:
            raise ImageError(
                "expected an image (jpg, png, webp, bmp, tiff, gif or avif), got something else or a damaged one"
            ) from None
        if width * height > self.limits.pixels:
            raise ImageError(
                f"expected at most {self.limits.pixels:,} pixels, got {width} x {height}; make it smaller, or serve with "
                "--max-pixels"
            )
        return kind

    def _find_free(self, name: str) -> Path:
        stem, ending = PurePosixPath(name).stem, PurePosixPath(name).suffix
        taken = {path.name.casefold() for path in self.folder.iterdir()}
        names = [name, *(f"{stem}-{k}{ending}" for k in range(2, len(taken) + 3))]
        return self.folder / next(one for one in names if one.casefold() not in taken)


def clean_name(name: str, ending: str) -> str:
    r"""The last part of a name that somebody sent, without what file systems or browsers take for something else.

    >>> clean_name("../../etc/passwd", ".png"), clean_name("C:\\photos\\a b.JPG", ".jpg"), clean_name(".htaccess", ".jpg")
    ('passwd.png', 'a b.JPG', 'htaccess.jpg')
    """
    text = PureWindowsPath(unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())).name
    text = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*%#]', "_", text).strip(" .") or "image"
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    stem, suffix = PurePosixPath(text).stem, PurePosixPath(text).suffix
    if suffix.lower() not in SUFFIXES:
        stem, suffix = text, ending
    short = stem[:_LONGEST].encode()[:_MOST_BYTES].decode(errors="ignore").strip(" .")
    return f"{short or 'image'}{suffix}"
