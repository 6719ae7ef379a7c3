"""Cards: what a set of weights is, where it came from, and that it is what it says.

A model is a folder: its configuration and safetensors in the layout of its own library, and ``card.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from annofree.errors import InputError, MissingError
from annofree.formats.files import write_json

__all__ = ["Card", "bundled", "sha256_of"]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Card:
    """One set of weights.

    ``tier`` is the supervision that went into it: S0 images only, S1 image-text pairs, S2 class-agnostic masks,
    S3 human entity labels, S4 human boxes or concepts.  ``sha256`` by file name; ``use`` holds the settings that this
    model works best with; ``figures`` what was measured when it was made, and ``world`` on what.
    """

    name: str
    family: str
    tier: str
    licence: str
    trained_on: str
    world: str
    files: Mapping[str, str]
    use: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read the card of a model folder and check its files against it.

        Raises MissingError without the folder or a file, InputError when a file is not what the card says.
        """
        path = folder / "card.json"
        if not path.is_file():
            raise MissingError(f"expected a model folder with card.json at {folder}; there is none")
        card = cls(**json.loads(path.read_text(encoding="utf-8")))
        for name, expected in card.files.items():
            if not (folder / name).is_file():
                raise MissingError(f"the model {card.name} needs {name} beside its card in {folder}; it is not there")
            found = sha256_of(folder / name)
            if found != expected:
                raise InputError(
                    f"{folder / name} is not the file of its card: expected SHA-256 {expected[:12]}..., "
                    f"got {found[:12]}...; fetch or train the model again"
                )
        return card

    def write(self, folder: Path) -> None:
        """Write the card beside its files."""
        write_json(folder / "card.json", asdict(self), indent=2)

    def provenance(self) -> dict[str, Any]:
        """What a result says of the weights that made it."""
        return {
            "name": self.name,
            "family": self.family,
            "tier": self.tier,
            "licence": self.licence,
            "sha256": dict(self.files),
        }


def bundled(name: str) -> Path:
    """Return the folder of a model that comes with the package, such as ``tiny-clip``."""
    return Path(str(resources.files("annofree.assets") / name))
