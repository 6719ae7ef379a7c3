"""The methods that there are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MethodInfo", "list_methods"]


@dataclass(frozen=True)
class MethodInfo:
    """A method: the tasks that it does, its named settings, and the roles of the models that it needs."""

    name: str
    tasks: tuple[str, ...]
    variants: tuple[str, ...]
    models: tuple[str, ...]


def list_methods() -> list[MethodInfo]:
    """List all methods, those of other packages among them.

    >>> [method.name for method in list_methods() if "semantic" in method.tasks][:2]
    ['consensus', 'clip_diy']
    """
    from annofree.methods.registry import methods

    return [MethodInfo(name, tuple(e.tasks), tuple(e.variants), tuple(e.needs)) for name, e in methods().items()]
