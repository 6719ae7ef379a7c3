"""Names that a trained network knows, beside those that it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

__all__ = ["explain_unknown_name", "normalize_name"]

_LISTED = 12  # names that a remark lists


def normalize_name(name: str) -> str:
    """A name as it is compared: in small letters, single spaces between its words.

    >>> normalize_name(" Traffic  Light")
    'traffic light'
    """
    return " ".join(name.lower().split())


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
