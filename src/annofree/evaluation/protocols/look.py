"""How training-free methods look at a data set's images, by protocol: short side, windows, words for the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Look"]


@dataclass(frozen=True)
class Look:
    """How training-free methods are used to look at a data set's images: no rule of scoring, but figures hang on it."""

    # px of the short side that an image is brought to
    short: int
    # px of the squares that slide over it
    window: int = 224
    # px from one to the next
    step: int = 112
    # the words that stand for what is none of the names; none where every pixel has one
    words: tuple[str, ...] = ()
    # the probability under which papers take a pixel for background beside the words; told here, and followed by no method
    threshold: float = 0.0

    def to_settings(self) -> dict[str, Any]:
        """The settings of the methods `proxy_clip` and `region_clip` that look so.

        >>> Look(336).to_settings()["background"]
        {'rule': 'none'}
        """
        background = {"rule": "words", "words": list(self.words)} if self.words else {"rule": "none"}
        windows = {"short": self.short, "side": self.window, "step": self.step}
        return {"windows": windows, "dino_side": self.window, "background": background}
