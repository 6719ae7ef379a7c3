"""Where tables are printed: a terminal as wide as it is, a file or a pipe wide enough that nothing is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["open_console"]

_WIDE = 180  # characters


def open_console(width: int = _WIDE, **options: Any) -> Console:
    """Open the standard output, where square brackets are text; ``width`` counts where it is no terminal."""
    from rich.console import Console

    return Console(width=None if Console().is_terminal else width, **{"markup": False, **options})
