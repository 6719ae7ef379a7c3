"""What a training gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["TrainedModel"]


@dataclass(frozen=True)
class TrainedModel:
    """The ``folder`` of a trained model, its ``figures``, and by name why images could not be read.

    Figures are those of the last line of the log or, where a model was evaluated at its end, of that evaluation.
    """

    folder: Path
    figures: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def card(self) -> Path:
        """The file that says what the model was made of."""
        return self.folder / "card.json"
