"""Names that a trained network knows, beside those that it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from annofree.structures import Vocabulary

__all__ = ["explain_unknown_name", "match_names", "normalize_name"]

_LISTED = 12  # names that a remark lists


def normalize_name(name: str) -> str:
    """A name as it is compared: in small letters, single spaces between its words.

    >>> normalize_name(" Traffic  Light")
    'traffic light'
    """
    return " ".join(name.lower().split())


def match_names(known: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """For each name that a network knows which of the names asked for it is, by any of their words, -1 for none.

    >>> match_names(["dog", "tabby"], Vocabulary.of("cat: kitten | tabby, bird"))
    [-1, 0]
    """
    words = {normalize_name(word): k for k, entry in reversed(list(enumerate(vocabulary.synonyms))) for word in entry}
    return [words.get(normalize_name(name), -1) for name in known]


def explain_unknown_name(network: str, name: str, known: Sequence[str]) -> str:
    """What to say of a name that a ``network`` was not trained on: the nearest that it knows, or all, the first twelve.

    >>> explain_unknown_name("network", "dgo", ["dog", "cat"])
    "the network was not trained on 'dgo' and finds none; did you mean 'dog'?"
    """
    own = {normalize_name(one): one for one in known}
    near = [repr(own[word]) for word in get_close_matches(normalize_name(name), own, n=3, cutoff=0.5)]
    listed = ", ".join(known[:_LISTED]) + (", ..." if len(own) > _LISTED else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {listed}"
    return f"the {network} was not trained on {name!r} and finds none; {hint}"
