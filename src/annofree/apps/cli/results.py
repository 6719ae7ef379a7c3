"""How a command ends: its result as JSON or as text, and failures by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from annofree.io.text import clean_text

__all__ = ["print_failures", "print_result"]

_LISTED = 12


def print_result(summary: Any, text: str, as_json: bool, quiet: bool = False) -> None:
    """Print a summary as JSON or else, unless quiet, the text."""
    if as_json:
        print(json.dumps(summary, indent=2))
    elif not quiet:
        print(clean_text(text, lines=True))


def print_failures(failed: Mapping[str, str], what_to_do: str) -> None:
    """Print the first reasons of failures on the error stream, and how many more there are, with what can be done."""
    for why in list(failed.values())[:_LISTED]:
        print(f"failed: {clean_text(why)}", file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"failed: {len(failed) - _LISTED} more; {what_to_do}", file=sys.stderr)
