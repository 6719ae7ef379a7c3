"""Runs of a recipe with a bank: all images are seen before the first is asked, as in the two passes of ``relabel``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from annofree.errors import InputError
from annofree.methods.policies import resolve_bank
from annofree.structures import Image, Vocabulary

__all__ = ["collect_banks"]


class _Run(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def method(self) -> str: ...


def collect_banks(
    models: str,
    runs: Sequence[_Run],
    methods: Mapping[str, Any],
    vocabularies: Mapping[str, Vocabulary],
    images: Sequence[Image],
) -> dict[str, Any]:
    """The methods of some runs, by name, each with the bank of all images; methods that share encodings see an image once.

    Raises InputError for a method that takes no bank.
    """
    keys = {run.name: repr(methods[run.name].encoding_key) for run in runs}
    seen: dict[str, list[Any]] = {key: [] for key in keys.values()}
    makers = {keys[run.name]: methods[run.name] for run in runs}
    for image in images:
        for key, method in makers.items():
            seen[key] += method.encode([image])
    banked: dict[str, Any] = {}
    for run in runs:
        collect = getattr(methods[run.name], "with_bank_of", None)
        if collect is None:
            raise InputError(f"expected a method for the bank of {run.name!r} that names candidates by CLIP, got {run.method}")
        banked[run.name] = collect(seen[keys[run.name]], vocabularies[run.name], resolve_bank(models, run.method))
    return banked
