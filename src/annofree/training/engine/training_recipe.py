"""What every training is told, whatever it trains: the fields that all recipes share, and how a recipe is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from annofree.errors import InputError
from annofree.io.settings_file import check_names
from annofree.training.engine.recipe_checks import read_fields

__all__ = ["TrainingRecipe"]

_NOT_OF_THE_CURVE = (
    "out",
    "name",
    "licence",
    "world",
    "log_every",
    "checkpoint_every",
    "sample_every",
    "workers",
    "tensorboard",
)


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The fields that all recipes share; a recipe is a dataclass of this kind, with its own fields before these."""

    # which of the fields are paths, that count from the recipe's file
    paths: ClassVar[tuple[str, ...]] = ("out",)
    # fields that do not shape what is learned, beside those that all recipes have
    beside: ClassVar[tuple[str, ...]] = ()
    # fields that recipes did not always have: at its default such a one shapes nothing, so that older trainings go on
    added: ClassVar[tuple[str, ...]] = ()
    # the command whose help explains it
    command: ClassVar[str] = "annofree train"

    # of the weights and the scenes
    seed: int = 0
    # whether to compute in half precision; losses and weights stay in full (ours)
    bf16: bool = False
    # of the model's card
    licence: str = "unknown"
    # what the images show, on the model's card: photographs or emoji
    world: str = "photographs"
    # steps of a line of the log
    log_every: int = 20
    # steps between checkpoints
    checkpoint_every: int = 500
    # steps between drawn samples; 0 for none
    sample_every: int = 0
    # processes that make scenes ahead; 0 makes them in turn
    workers: int = 0
    # whether to write curves for TensorBoard, too; needs the package tensorboard
    tensorboard: bool = False

    @classmethod
    def read(cls, path: Path | None, **changes: Any) -> Self:
        """Read a recipe; ``changes`` are fields in the place of its own, or all of it where there is no file.

        Raises InputError when it is not there, not TOML, lacks a field or has one that there is not, with the nearest names.
        """
        held = {} if path is None else read_fields(path, cls, cls.paths)
        held |= {} if path is None else cls.find_places(path.parent, held)
        check_names("field of the recipe", changes, [f.name for f in fields(cls)])
        held |= {name: value for name, value in changes.items() if value is not None}
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        if lacking := [name for name in needed if name not in held]:
            where = f"the recipe {path}" if path else "the recipe"
            raise InputError(f"expected {', '.join(lacking)} in {where}, got none; see `{cls.command} --help`")
        return cls(**held)

    @classmethod
    def find_places(cls, folder: Path, held: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that may be a name or a place, as places where they are such, from the folder of the recipe on."""
        return {}

    def resume_key(self) -> dict[str, Any]:
        """The fields that shape what is learned."""
        unused = {f.name for f in fields(self) if f.name in self.added and getattr(self, f.name) == f.default}
        left_out = {*_NOT_OF_THE_CURVE, *self.beside, *unused}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
