"""What a noun has done for it by a room above, or by a package that is not always there.

Rooms import downward only, and the nouns lie below those that draw and write.  A notebook asks the noun all the same:
``found.draw(image)``.  So the room is named here, by a text, and imported when it is asked, as the front door ``annofree`` does
it.  A hook would draw only where somebody had imported the room that fills it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from annofree.errors import MissingError

__all__ = ["import_package", "load_notebook_function", "save_label_map"]


def load_notebook_function(name: str) -> Any:
    """Return a function of ``annofree.render.notebook``, which draws nouns."""
    return getattr(import_module("annofree.render.notebook"), name)


def save_label_map(*arguments: Any) -> None:
    """Call ``save_label_map`` of ``annofree.formats.label_maps``."""
    import_module("annofree.formats.label_maps").save_label_map(*arguments)


def import_package(name: str, what: str) -> Any:
    """Import a package that ``what`` needs; raises MissingError where it is not installed.

    >>> import_package("numpy", "all").__name__
    'numpy'
    """
    try:
        return import_module(name)
    except ImportError:
        raise MissingError(f"{what} needs {name}, which is not installed; pip install {name}") from None
