"""Make images as no one would wish them: torn, huge, odd in colour, kind, size or name.

    uv run python benchmarks/hostile.py --count 1000 --out hostile
    uv run annofree segment hostile --models tiny --classes "dog, cat" --out run

``hostile-expected.json`` beside the folder says which can be read.

    uv run python benchmarks/hostile.py --suite --count 2000 --out DIR

runs every reader and command over so many hostile annotations, tars, runs, indexes, archives, cards, settings and numbers,
each in a fork of this process, and prints a row a family: what was refused, read, or read but for what was named, and what
went wrong: tracebacks, writes outside of the output, copied secrets, objects dropped silently, control signs, timeouts, memory.
The exit code is 1 where anything did; those cases stay in DIR.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

Picture = PIL.Image.Image
RED, GREY = (200, 30, 30), (128, 128, 128)


def plain(size: tuple[int, int] = (60, 40)) -> Picture:
    """A red box on grey."""
    image = PIL.Image.new("RGB", size, GREY)
    image.paste(RED, (size[0] // 8, size[1] // 5, size[0] * 2 // 3, size[1] * 4 // 5))
    return image


def encoded(image: Picture, kind: str = "PNG", **how: Any) -> bytes:
    """The bytes of an image's file."""
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 50,000 x 50,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def rotated() -> bytes:
    """A JPEG that lies on its side, and says so."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(plain(), "JPEG", exif=exif)


def transparent() -> bytes:
    """A palette with a colour that is none."""
    return encoded(plain().convert("P"), transparency=0)


def deep() -> bytes:
    """Sixteen bits a pixel."""
    return encoded(PIL.Image.fromarray(np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)))


def animated() -> bytes:
    """A GIF of two frames."""
    return encoded(plain(), "GIF", save_all=True, append_images=[plain((60, 40)).rotate(180)])


JPEG = encoded(plain(), "JPEG")
READABLE: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "plain": ("a.jpg", lambda: JPEG),
    "cmyk": ("cmyk.jpg", lambda: encoded(plain().convert("CMYK"), "JPEG")),
    "deep": ("deep.png", deep),
    "palette": ("palette.png", transparent),
    "animated": ("moving.gif", animated),
    "rotated": ("rotated.jpg", rotated),
    "dot": ("dot.png", lambda: encoded(plain((1, 1)))),
    "thread": ("thread.png", lambda: encoded(plain((20_000, 3)))),
    "wrong ending": ("really a.png", lambda: JPEG),
    "spaces": ("  two  spaces .png", lambda: encoded(plain())),
    "quotes": ('it\'s "quoted" `here` $(x).png', lambda: encoded(plain())),
    "emoji": ("☃ 🐕‍🦺 é.png", lambda: encoded(plain())),
    "newline": ("two\nlines\r\n.png", lambda: encoded(plain())),
    "colons": ("c:\\d:e*?.png", lambda: encoded(plain())),
    "dots": ("..a..b...PNG", lambda: encoded(plain())),
    "dashes": ("--out.png", lambda: encoded(plain())),
    "long": ("l" * 240 + ".png", lambda: encoded(plain())),
}
TORN: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "truncated": ("truncated.jpg", lambda: JPEG[: len(JPEG) // 2]),
    "truncated head": ("head.jpg", lambda: JPEG[:20]),
    "bomb": ("bomb.png", bomb),
    "empty": ("zero.jpg", lambda: b""),
    "text": ("text.png", lambda: b"no image"),
    "torn newline": ("torn\nlines.png", lambda: b"no image"),
}


def make(folder: Path, count: int = len(READABLE) + len(TORN) + 3) -> dict[str, bool]:
    """Write at least ``count`` images, kind after kind; returns the id of each, and whether it can be read."""
    expected: dict[str, bool] = {}
    for k in range(count):
        here = folder / f"{k // (len(READABLE) + len(TORN) + 3)}"
        if not here.exists():
            here.mkdir(parents=True)
            expected |= {path.relative_to(folder).as_posix(): good for path, good in _kinds(here).items()}
    return expected


def _kinds(here: Path) -> dict[Path, bool]:
    made: dict[Path, bool] = {}
    for kinds, good in ((READABLE, True), (TORN, False)):
        for name, content in kinds.values():
            name = name.lstrip(".") if good else name
            (here / name).write_bytes(content())
            made[here / name] = good
    (here / "loop.png").symlink_to(here / "loop.png")
    (here / "nowhere.png").symlink_to(here / "gone.png")
    (here / "round").symlink_to(here)  # a folder that holds itself: not followed
    secret = here / "secret.png"
    secret.write_bytes(encoded(plain()))
    secret.chmod(0)
    return made | {here / "loop.png": False, here / "nowhere.png": False, secret: _is_readable(secret)}


def _is_readable(path: Path) -> bool:
    """Whether this process may read a file, whoever runs it: some may read what nobody has rights to."""
    try:
        path.open("rb").close()
    except PermissionError:
        return False
    return True


def run_suite(count: int, out: Path, families: Sequence[str]) -> int:
    """Run the whole suite, print its table and what is wrong, and return the exit code."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.hostile_inputs.suite import SHARES, as_table, list_cases, run_cases, warm

    torch.set_num_threads(1)  # a fork has no other threads
    out.mkdir(parents=True)
    warm(out / "warm")
    outcomes = run_cases(list_cases(count, out / "good", families or tuple(SHARES)), out / "cases")
    print(as_table(outcomes))
    wrong = [(number, one) for number, one in enumerate(outcomes) if one.faults]
    for number, one in wrong:
        print(f"{number:05} {one.case.family}: {one.case.name!r}: {dict(one.faults)}")
    return int(bool(wrong))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("hostile"))
    parser.add_argument("--suite", action="store_true")
    parser.add_argument("--families", default="", help="annotations,runs,models,settings,archives,command line")
    asked = parser.parse_args(arguments)
    if asked.suite:
        sys.exit(run_suite(asked.count, asked.out, [name for name in asked.families.split(",") if name]))
    expected = make(asked.out, asked.count)
    Path(f"{asked.out}-expected.json").write_text(json.dumps(expected, indent=1), encoding="ascii")
    print(f"{len(expected)} images in {asked.out}, {sum(expected.values())} of which can be read")


if __name__ == "__main__":
    main()
