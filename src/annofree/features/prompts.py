"""Text features of names: prompt ensembling, batched encoding and caching.

T texts, D embedding, K classes, N names.  A feature is keyed by the model, by the templates themselves (not by the name of
their set) and by the class name, in memory and, if a folder is given, on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error
from annofree.hub.store import find_home
from annofree.io.atomic import write_atomic
from annofree.structures import Vocabulary

__all__ = ["AVERAGED_RAW", "TEMPLATES", "TextFeatures", "compute_fingerprint", "find_text_cache", "resolve_templates"]

Encode = Callable[[list[str]], Tensor]

_IMAGENET = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
_SCENE = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

_TIPS = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "ensemble": _IMAGENET + _SCENE,
    "imagenet": _IMAGENET,
    "scene": _SCENE,
    "photo": ("a photo of a {}.",),
    "clip-diy": ("a photo of a {}",),
    "tips": _TIPS,
    "tcl": _TIPS,
    "name": ("{}",),
}
"""Template sets by name.

``ensemble``: the 85 of MaskCLIP, CLIP Surgery (so of Zip's official code) and of ZUTIS's retrieval; ``imagenet``: the 80 of
OpenAI; ``scene``: the five that make up the difference; ``photo``: CLIP's single default; ``clip-diy``: the one of CLIP-DIY's
official code, without full stop and never with "an"; ``tips``: the nine that TIPSv2 was released with; ``tcl``: the same nine
of TCL, which averages them before any is made unit; ``name``: the bare name, as ZUTIS's official classifier reads it.
"""

AVERAGED_RAW = ("tcl",)
"""The sets whose prompts count by the length of their features, as their release averages these as they are."""


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named set, or check a custom list: each has one {} for the class name.

    Raises InputError for an unknown set, an empty or doubled list, and a template without its {}.

    >>> resolve_templates("photo"), len(resolve_templates("ensemble"))
    (('a photo of a {}.',), 85)
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise build_unknown_error("template set", templates, TEMPLATES)
        return TEMPLATES[templates]
    own = tuple(templates)
    if not own:
        raise InputError(f"expected at least one template such as {TEMPLATES['photo'][0]!r}, got none")
    for template in own:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise InputError(f"expected one {{}} in each template, where the name goes, got {template!r}")
    if len(set(own)) < len(own):
        raise InputError(f"expected each template once, got {', '.join(repr(t) for t in own if own.count(t) > 1)}")
    return own


def compute_fingerprint(files: Mapping[str, str | None]) -> str:
    """Hash the SHA-256 of a model's files into one key; raises InputError if one is unknown.

    >>> one = compute_fingerprint({"a": "1", "b": "2"})
    >>> one == compute_fingerprint({"b": "2", "a": "1"}) != compute_fingerprint({"a": "1"})
    True
    """
    unknown = [name for name, sha256 in files.items() if not sha256]
    if unknown or not files:
        raise InputError(f"expected the SHA-256 of each file of a model, got none for {', '.join(unknown) or 'any'}")
    return _digest(sorted(files.items()))


def find_text_cache() -> Path:
    """Return the folder of cached text features: ``text`` in annofree's own folder, which $ANNOFREE_HOME names."""
    return find_home() / "text"


class TextFeatures:
    """Unit text features of names, by one model and one set of templates; float32, on the CPU.

    ``encode`` turns a list of texts into (T, D), on any device and of any length; ``model`` is a key that no other weights,
    tokenizer or precision share (see ``compute_fingerprint``); ``cache`` is a folder to keep features in (see
    ``find_text_cache``), None keeps them in memory only; at most ``batch`` prompts go into one call of ``encode``.  What else
    is in that call changes a feature by no more than rounding.  ``raw`` averages the prompts of a name as they are, else each
    is made unit first.

    The cache is best-effort: unreadable files are rebuilt, a read-only folder is ignored,
    and if processes write at once, the last one wins and the other names are encoded again later.

    >>> features = TextFeatures(lambda texts: torch.tensor([[3.0, 4.0]] * len(texts)), model="constant")
    >>> features.encode_names(["dog", "cat"])
    tensor([[0.6000, 0.8000],
            [0.6000, 0.8000]])
    """

    def __init__(
        self,
        encode: Encode,
        model: str,
        templates: str | Sequence[str] = "ensemble",
        *,
        cache: Path | None = None,
        batch: int = 256,
        raw: bool = False,
    ) -> None:
        if batch < 1:
            raise InputError(f"expected a batch of at least one prompt, got {batch}")
        self.templates = resolve_templates(templates)
        self._encode, self._model, self._batch, self._raw = encode, f"{model} raw" if raw else model, batch, raw
        self._known: dict[str, Tensor] = {}
        self._path = None if cache is None else cache / f"{_digest([self._model, self.templates])}.safetensors"

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """One unit feature per name, (N, D): the mean over its prompts' features, unit ones unless ``raw``, normalized."""
        if isinstance(names, str):
            raise InputError(f"expected a list of names, got the text {names!r}; write [{names!r}]")
        # Plain tensors, whatever mode the caller is in: as a frozen classifier, they take part in training.
        with torch.inference_mode(False), torch.no_grad():
            self._learn(list(dict.fromkeys(names)))
            return torch.stack([self._known[name] for name in names])

    def encode_classes(self, vocabulary: Vocabulary) -> Tensor:
        """One unit feature per class, (K, D): the mean over its synonyms' unit features, normalized."""
        with torch.inference_mode(False), torch.no_grad():
            self._learn(list(dict.fromkeys(word for words in vocabulary.synonyms for word in words)))
            return torch.stack([F.normalize(self.encode_names(words).mean(0), dim=0) for words in vocabulary.synonyms])

    def count_new_texts(self, vocabulary: Vocabulary) -> int:
        """How many prompts would have to be encoded for the words of these classes, which neither memory nor disk holds."""
        self._known = self._read() | self._known
        return len(self.templates) * len({word for words in vocabulary.synonyms for word in words} - self._known.keys())

    def encode_empty_name(self) -> Tensor:
        """The unit feature (D) of the empty name, which CLIP Surgery subtracts from all others."""
        return self.encode_names([""])[0]

    def _learn(self, names: list[str]) -> None:
        if all(name in self._known for name in names):
            return
        self._known = self._read() | self._known
        unknown = [name for name in names if name not in self._known]
        for start in range(0, len(unknown), self._batch):  # so many names make whole batches of any number of prompts
            some = unknown[start : start + self._batch]
            self._known |= zip(some, self._encoded(some), strict=True)
            self._write()  # now and then: whoever is killed goes on from here

    def _encoded(self, names: list[str]) -> Tensor:
        """Encode all prompts of N names, (N, D); the prompts of many names share a call."""
        prompts = [(row, t.replace("{}", name)) for row, name in enumerate(names) for t in self.templates]
        sums = torch.zeros(0)
        for start in range(0, len(prompts), self._batch):
            rows, texts = zip(*prompts[start : start + self._batch], strict=True)
            features = self._encode(list(texts)).detach().float().cpu()
            features = features if self._raw else F.normalize(features, dim=-1)
            sums = sums if len(sums) else torch.zeros(len(names), features.shape[1])
            sums.index_add_(0, torch.tensor(rows), features)
        return F.normalize(sums, dim=-1)

    def _read(self) -> dict[str, Tensor]:
        """The cached features of this model and these templates; empty if the file is missing, damaged or of another model."""
        if self._path is None:
            return {}
        try:
            held = load(self._path.read_bytes())  # read in one go, since another process may replace it at any time
            features, about = held["features"], json.loads(bytes(held["about"].tolist()))
            usable = about["made_by"] == self._made_by and len(about["names"]) == len(features)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return {}
        sound = usable and features.dtype == torch.float32 and bool(features.isfinite().all())
        return dict(zip(about["names"], features, strict=True)) if sound else {}

    def _write(self) -> None:
        if self._path is None:
            return
        kept = self._read() | self._known  # another process may have written meanwhile
        about = json.dumps({"names": list(kept), "made_by": self._made_by}).encode()
        held = {"features": torch.stack(list(kept.values())), "about": torch.tensor(list(about), dtype=torch.uint8)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, lambda temporary: temporary.write_bytes(save(held)))
        except OSError:
            return

    @property
    def _made_by(self) -> list[Any]:
        return [self._model, list(self.templates)]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
