"""The names that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from annofree.errors import InputError

__all__ = ["BACKGROUND", "Classes", "Vocabulary"]

BACKGROUND = "background"
"""The name, in any capitals, that means none of the others when it is listed among the names."""

Classes: TypeAlias = "str | Iterable[str] | Vocabulary"
"""Names as ``Vocabulary.of`` reads them: 'dog, cat: kitten | tabby', a list of such entries, or a vocabulary."""

_LONGEST_NAME = 200


@dataclass(frozen=True)
class Vocabulary:
    """The names that are asked for, each with other words for the same thing.

    ``names`` (K) are what results are called; ``synonyms`` (K) hold the words whose text features are averaged, the name
    itself first.  Raises InputError for no, empty, doubled or endless names.

    >>> Vocabulary.of("dog, cat: kitten | tabby").synonyms
    (('dog',), ('cat', 'kitten', 'tabby'))
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, classes: Classes) -> Vocabulary:
        """Read a vocabulary from 'dog, cat: kitten | tabby', or from a list of such entries."""
        if isinstance(classes, Vocabulary):
            return classes
        entries = classes.split(",") if isinstance(classes, str) else classes
        if isinstance(entries, bytes | Mapping) or not isinstance(entries, Iterable):
            raise InputError(f'expected class names as a text such as "dog, cat" or a list, got {type(classes).__name__}')
        return cls.from_entries(_entry(entry) for entry in entries)

    @classmethod
    def from_entries(cls, entries: Iterable[tuple[str, ...]]) -> Vocabulary:
        """Build a vocabulary from word tuples, the name first."""
        words = tuple(entries)
        return cls(tuple(w[0] for w in words), words)

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError('expected at least one class name, got none; for example --classes "dog, traffic light"')
        for name in (word for words in self.synonyms for word in words):
            if not name:
                raise InputError(f"a class name is empty among {list(self.names)}; remove the extra comma or bar")
            if len(name) > _LONGEST_NAME:
                raise InputError(
                    f"a class name has {len(name)} characters, expected at most {_LONGEST_NAME}: {name[:40]!r}...; "
                    "are the names separated by commas?"
                )
        doubled = sorted({n for n in self.names if self.names.count(n) > 1})
        if doubled:
            raise InputError(f"expected each class name once, got {', '.join(map(repr, doubled))} more than once")

    def __len__(self) -> int:
        return len(self.names)


def _entry(text: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise InputError(f"expected each class name as a text, got {text!r}")
    name, colon, rest = text.partition(":")
    return tuple(" ".join(word.split()) for word in ([name, *rest.split("|")] if colon else [name]))
