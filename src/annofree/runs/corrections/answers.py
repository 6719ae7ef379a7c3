"""What the machine said of images on the page, kept in a workspace: a file an image, replaced when it is asked anew.

FOLDER/serve
├── workspace.json  the names, method and models that are asked for now, and where the images are
├── answers/        what came of it, by image
├── uploads/        images that came over the page
└── thumbnails/, encodings/   what can be made again
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import make_folder, write_json
from annofree.runs.corrections.acts import Instance

__all__ = ["Answer", "AnswerStore", "find_workspace", "read_workspace"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the machine says of an image of ``size`` (H, W), what it hands over first, and how long it took, s."""

    size: tuple[int, int]
    instances: tuple[Instance, ...]
    seconds: float = 0.0


def find_workspace(folder: Path) -> Path:
    """The folder of the page's own files in that of a run or a workspace."""
    return folder / "serve"


def read_workspace(folder: Path) -> dict[str, Any]:
    """What workspace.json says, nothing where there is none; raises InputError where it is damaged."""
    path = find_workspace(folder) / "workspace.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"expected the settings of a page in {path}, but they cannot be read ({problem}); remove it") from None
    if not isinstance(held, dict):
        raise InputError(f"expected the settings of a page in {path}, got something else; remove it")
    return held


class AnswerStore:
    """The answers in a workspace; each is for what was ``asked``, by a text that tells it from other questions."""

    def __init__(self, folder: Path) -> None:
        self.folder = find_workspace(folder) / "answers"

    def write(self, image: str, asked: str, answer: Answer) -> None:
        """Keep an answer in the place of an earlier one."""
        path = self._place(image)
        make_folder(path.parent)
        rows = [
            {
                "class": one.name,
                "counts": one.rle["counts"].decode("ascii"),
                "score": one.score,
                "kept": one.kept,
                "verdict": one.verdict,
                "id": one.id,
            }
            for one in answer.instances
        ]
        held = {"image": image, "asked": asked, "size": list(answer.size), "seconds": answer.seconds, "instances": rows}
        write_json(path, held, ascii_only=True)

    def read(self, image: str, asked: str) -> Answer | None:
        """The answer to a question, None where there is none; a damaged one is none."""
        held = _load(self._place(image))
        return _read(held) if held and held.get("asked") == asked and held.get("image") == image else None

    def list_all(self, asked: str) -> Iterator[tuple[str, Answer]]:
        """All answers to a question, in no order."""
        for path in self.folder.glob("*/*.json"):
            held = _load(path)
            answer = _read(held) if held and held.get("asked") == asked else None
            if held and answer is not None:
                yield str(held["image"]), answer

    def _place(self, image: str) -> Path:
        name = hashlib.sha256(image.encode(errors="surrogatepass")).hexdigest()[:40]
        return self.folder / name[:2] / f"{name[2:]}.json"


def _load(path: Path) -> Mapping[str, Any] | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


def _read(held: Mapping[str, Any]) -> Answer | None:
    try:
        size = int(held["size"][0]), int(held["size"][1])
        return Answer(size, tuple(_instances(held["instances"], size)), float(held["seconds"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _instances(rows: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[Instance]:
    for row in rows:
        rle = {"size": list(size), "counts": row["counts"].encode("ascii")}
        yield Instance(row["id"], row["class"], rle, row["score"], kept=row["kept"], verdict=row["verdict"])
