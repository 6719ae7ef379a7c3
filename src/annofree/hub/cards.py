"""Cards: description, origin, license and checksums of a set of weights.

A model is a folder: its configuration and safetensors in the layout of its own library, and ``card.json``.  The cards of
weights that others publish are in ``assets/models.toml``; the weights themselves are fetched by ``hub``.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from annofree.errors import InputError, MissingError
from annofree.io.atomic import write_json
from annofree.io.read_json import read_json_object
from annofree.io.regular import require_regular

__all__ = [
    "BUNDLED",
    "KINDS",
    "PICKLES",
    "TIERS",
    "Card",
    "find_bundled",
    "format_size",
    "hash_file",
    "list_known_cards",
    "read_bundled_card",
]

BUNDLED = ("tiny-clip", "tiny-clip-vit", "tiny-sam", "tiny-dino", "tiny-found", "tiny-zutis", "tiny-detector")
"""The models that come with the package."""
KINDS = ("clip", "sam", "dino", "saliency", "segmenter")
TIERS: Mapping[str, str] = {
    "S0": "images only",
    "S1": "image-text pairs",
    "S2": "class-agnostic masks, as SAM's",
    "S3": "human entity or panoptic labels",
    "S4": "human boxes or concepts at scale",
}
"""The supervision that went into a model, from none to most."""
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that may run code when they are loaded; they are never loaded."""
_KIND_OF_LIBRARY = {"open_clip": "clip", "transformers": "sam", "timm": "dino"}
_GATES = ("none", "terms")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with require_regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_size(count: int) -> str:
    """Format a number of bytes for display.

    >>> format_size(408_241_980), format_size(2_494_677_308), format_size(2_000), format_size(0)
    ('408 MB', '2.5 GB', '2 kB', 'unknown size')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if name == "GB" else f"{count / unit:.0f} {name}"
    return f"{count} B" if count else "unknown size"


_TEXTS = (
    *("name", "family", "tier", "licence", "trained_on", "world", "kind", "hub", "revision", "code_licence", "gate", "link"),
    *("address", "pinned_by"),
)
_KINDS_OF_FIELDS: Mapping[str, type] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("parameters", "size"), int),
    **dict.fromkeys(("files", "use", "figures", "preprocessing", "published", "noted"), dict),
    "papers": list,
}
"""What a card's file holds of each field."""


@dataclass(frozen=True)
class Card:
    """One set of weights: what it is, what went into it, and where it is published.

    Raises InputError for another tier, kind or gate, and for file names that are pickles or leave the folder.
    """

    # unique among all cards
    name: str
    # the library whose layout the files have, then the architecture
    family: str
    # the supervision that went into it, a key of ``TIERS``
    tier: str
    # of the weights, as an SPDX identifier, or unknown
    licence: str
    # the data, in words
    trained_on: str
    # what its figures were measured on
    world: str
    # SHA-256 by file name, None where it is not known before the first download
    files: Mapping[str, str | None]
    # settings that this model works best with
    use: Mapping[str, Any] = field(default_factory=dict)
    # what was measured when it was made, by name
    figures: Mapping[str, float] = field(default_factory=dict)
    # what it can serve as: clip, sam, dino, ...
    kind: str = ""
    # the repository where it is published; empty for what is on no hub
    hub: str = ""
    # a commit of the repository, or a branch, which is not pinned
    revision: str = ""
    # of the published code, as an SPDX identifier, or unknown
    code_licence: str = ""
    # none, or terms where terms have to be accepted on the hub
    gate: str = "none"
    # where more is said of it
    link: str = ""
    # number of weights, 0 where it is not known
    parameters: int = 0
    # bytes of what is downloaded, about
    size: int = 0
    # what its makers fed it: mean, std, size
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    # where it was published
    papers: tuple[str, ...] = ()
    # SHA-256 by file name, of what its makers publish and is added by hand; None where it is not known before that
    published: Mapping[str, str | None] = field(default_factory=dict)
    # where that file is
    address: str = ""
    # who else names the commit and the hashes
    pinned_by: str = ""
    # a commit and hashes that one source alone names, by which nothing is checked
    noted: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", _KIND_OF_LIBRARY.get(self.family.split(" ")[0], ""))
        object.__setattr__(self, "papers", tuple(self.papers))
        for what, value, known in (("tier", self.tier, TIERS), ("kind", self.kind, ("", *KINDS)), ("gate", self.gate, _GATES)):
            if value not in known:
                one_of = ", ".join(filter(None, known))
                raise InputError(f"expected the {what} of {self.name} to be one of {one_of}, got {value!r}")
        if not _NAME.fullmatch(self.name):
            raise InputError(f"expected a model's name of letters, digits and . _ : / -, got {self.name!r}")
        for name in self.files:
            _refuse_file(self.name, name)

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit (immutable)."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")

    @property
    def branch(self) -> str:
        """The branch of its repository whose newest commit is asked for."""
        return "main" if self.pinned else self.revision

    def explain_adding(self) -> str:
        """Say how a model comes here that is on no hub.

        >>> list_known_cards()["found"].explain_adding().rpartition(" and ")[2]
        'add it with `annofree models add --from decoder_weights.pt --name found`'
        """
        file = next(iter(self.published), "DIR")
        what = f"take {file} from {self.address}" if self.address else f"take it from {self.link or 'its makers'}"
        return f"{what} and add it with `annofree models add --from {file} --name {self.name}`"

    @classmethod
    def parse(cls, path: Path) -> Card:
        """Read a card alone; raises InputError when the file is not one."""
        try:
            held = read_json_object(path)
            wrong = next((key for key, value in held.items() if not isinstance(value, _KINDS_OF_FIELDS.get(key, object))), None)
            if wrong:
                raise ValueError(f"{wrong} is {held[wrong]!r}")
            return cls(**held)
        except InputError:
            raise
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            raise InputError(f"expected a model's card in {path}, but it is not one: {problem}") from None

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read the card of a model folder and check its files against it.

        Raises MissingError for a missing folder or file, InputError if a file does not match the card.
        """
        path = folder / "card.json"
        if not path.is_file():
            raise MissingError(f"expected a model folder with card.json at {folder}; there is none")
        card = cls.parse(path)
        for name, expected in card.files.items():
            if not (folder / name).is_file():
                raise MissingError(f"the model {card.name} needs {name} beside its card in {folder}; it is not there")
            found = hash_file(folder / name)
            if found != expected:
                raise InputError(
                    f"{folder / name} is not the file of its card: expected SHA-256 {str(expected)[:12]}..., "
                    f"got {found[:12]}...; fetch or train the model again"
                )
        return card

    def write(self, folder: Path) -> None:
        """Write the card beside its files."""
        write_json(folder / "card.json", asdict(self), indent=2)

    def to_provenance(self) -> dict[str, Any]:
        """The provenance that results record of these weights."""
        return {
            "name": self.name,
            "kind": self.kind,
            "family": self.family,
            "hub": self.hub,
            "revision": self.revision,
            "tier": self.tier,
            "licence": self.licence,
            "code_licence": self.code_licence or "unknown",
            "sha256": {name: sha for name, sha in self.files.items() if sha},
        }


def _refuse_file(model: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.suffix in PICKLES:
        raise InputError(f"the model {model} comes as a pickle ({name}), which may run code when loaded; expected safetensors")
    if len(path.parts) != 1 or name in {"", ".", "..", "card.json"} or "\\" in name:
        raise InputError(f"expected the files of {model} as plain names beside its card, got {name!r}")


def find_bundled(name: str) -> Path:
    """Return the folder of a model that comes with the package, such as ``tiny-clip``."""
    return Path(str(resources.files("annofree.assets") / name))


def read_bundled_card(name: str) -> Card:
    """Return the card of a bundled model, whose code is annofree itself."""
    card = Card.parse(find_bundled(name) / "card.json")
    size = sum((find_bundled(name) / file).stat().st_size for file in card.files)
    return replace(card, code_licence="Apache-2.0", size=size)


@cache
def list_known_cards() -> Mapping[str, Card]:
    """The cards of all weights that annofree knows by name: the bundled ones, then those of ``assets/models.toml``."""
    cards = {name: read_bundled_card(name) for name in BUNDLED}
    text = (resources.files("annofree.assets") / "models.toml").read_text(encoding="utf-8")
    for group in tomllib.loads(text)["group"]:
        models = group.pop("models")
        for name, own in models.items():
            fields = {"world": "photographs", "revision": "main", **group, **own}
            fields["files"] = dict.fromkeys(fields["files"]) | fields.pop("sha256", {})
            fields["use"] = {**group.get("use", {}), **own.get("use", {})}
            if fields.get("address") and "published" not in fields:
                fields["published"] = {fields["address"].rpartition("/")[2]: None}
            cards[name] = Card(name=name, **fields)
    return cards
