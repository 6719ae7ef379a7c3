"""An archive with its pseudo-masks, as something to learn names from: which image stands for which of the names asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.hub.license_policy import find_models
from annofree.io.files.checksums import measure_file
from annofree.io.read_json import read_own_json
from annofree.retrieval.archive import Archive, PseudoMask, read_masks

__all__ = ["MaskedArchive"]

_UNKNOWN = dict.fromkeys(("tier", "licence", "code_licence"), "unknown")


@dataclass(frozen=True, eq=False)
class MaskedArchive:
    """The ``archive`` of a ``folder`` and the ``masks`` of its images, by id; ``about`` says how the masks came about."""

    folder: Path
    archive: Archive
    masks: Mapping[str, PseudoMask]
    about: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> MaskedArchive:
        """Read an archive and its masks; raises InputError for a folder that is no archive, and for one without masks.

        >>> MaskedArchive.read(Path("examples"))
        Traceback (most recent call last):
        annofree.errors.InputError: expected an archive's archive.json in examples, ...
        """
        archive, masks = Archive.read(folder), read_masks(folder)
        if not masks:
            raise InputError(
                f"expected an archive with masks in {folder}, but it has none; make them with `annofree mask {folder}`"
            )
        path = folder / "masks-about.json"
        remedy = "delete it, and nobody knows how the masks came about"
        about = read_own_json(path, "how the masks came about", remedy) if path.exists() else {}
        return cls(folder, archive, masks, about)

    @property
    def checksums(self) -> dict[str, list[int]]:
        """Bytes and checksum of the files that references follow from."""
        return {name: measure_file(self.folder / name) for name in ("archive.json", "masks.jsonl")}

    def list_models(self) -> list[Mapping[str, Any]]:
        """The models that retrieved the images and made the masks; one of which nothing is known where that is not told."""
        parts = {"retrieval": self.archive.about.get("model"), "masks": self.about.get("model")}
        return [model for part, held in parts.items() for model in (list(find_models(held)) or [self._make_unknown(part)])]

    def _make_unknown(self, part: str) -> dict[str, Any]:
        return {"name": f"{part} of {self.folder.name}", "kind": part, **_UNKNOWN}

    def match_names(self, synonyms: Iterable[Sequence[str]]) -> dict[str, str]:
        """The name asked for of each name of the archive that is one of its words, whatever its letters; others are not there.

        >>> archive = Archive(("dog", "cat"), {"dog": (), "cat": ()}, {})
        >>> MaskedArchive(Path("x"), archive, {}, {}).match_names([("hound", "Dog")])
        {'dog': 'hound'}
        """
        asked = {word.lower(): words[0] for words in reversed(list(synonyms)) for word in words}
        return {name: asked[name.lower()] for name in self.archive.names if name.lower() in asked}

    def list_references(self, names: Mapping[str, str], most: int) -> dict[str, tuple[str, ...]]:
        """The names asked for that each image stands for, by id: it is among the ``most`` best images of these ``names``."""
        found: dict[str, tuple[str, ...]] = {}
        for name, asked in names.items():
            for member in self.archive.members[name][:most]:
                found[member.id] = tuple(dict.fromkeys((*found.get(member.id, ()), asked)))
        return found
