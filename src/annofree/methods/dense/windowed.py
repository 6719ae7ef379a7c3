"""What methods share that were released with mmsegmentation's sliding window: TCL and GroupViT.

    image -> short side 448 -> windows -> network -> scores of each window -> their mean where windows overlap -> best name

The network needs no name.  R rows scored (background words among them), N windows, H W pixels, h w px of the resized image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from annofree.clues.background import Asked, Background
from annofree.clues.sliding_windows import Box, average_windows, cut_windows, lay_windows, pad_to_patches
from annofree.detections.painting import Draw, convert_label_map, find_strongest
from annofree.errors import InputError
from annofree.features.towers.released import fit_released, normalize_released
from annofree.methods.variants import choose_settings
from annofree.ops.grids import resize_maps
from annofree.ops.regions import Connectivity
from annofree.protocols import Described
from annofree.structures import Classes, Detections, Image, LabelMap, Vocabulary

__all__ = ["WindowedEncoding", "WindowedMethod", "WindowedNetwork", "WindowedSettings"]

_AT_ONCE = 4  # windows


class WindowedNetwork(Described, Protocol):
    """A network that looks at windows."""

    @property
    def patch(self) -> int:
        """The px that the sides of a window are a multiple of; zeros make up for the rest."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...


@dataclass(frozen=True)
class WindowedSettings:
    """What may be chosen in each of these methods.

    Raises InputError for sizes under 1 px, a stride that leaves gaps, and a background that is told by an objectness.
    """

    # how pixels that are no thing are told
    background: Background = field(default_factory=Background)
    # px that the short side of an image becomes, by OpenCV's bilinear in whole numbers; 448 released
    short: int = 448
    # px of the long side at most; the short one is then less: 2048 released
    longest: int = 2048
    # px of a window's sides; 448 released
    window: int = 448
    # px from one window to the next; 224 released
    stride: int = 224
    # of the connected regions that are instances: 4 or 8 neighbors of a pixel; ours, as none of these finds instances itself
    connectivity: Connectivity = 8
    # px of an instance at least
    min_area: int = 0
    # instances an image, the strongest; 100 as COCO counts them
    most: int = 100

    def __post_init__(self) -> None:
        if min(self.short, self.longest) < 1:
            raise InputError(f"expected sides of at least 1 px, got short {self.short} and longest {self.longest}")
        lay_windows((1, 1), self.window, self.stride)
        if self.background.rule == "objectness":
            raise InputError("the background rule 'objectness' needs an objectness source, which this method has not")


@dataclass(frozen=True, eq=False)
class WindowedEncoding:
    """Of an image its ``size`` (H, W), the size ``resized`` (h, w) that it is looked at in, and its windows' ``boxes`` (N)."""

    size: tuple[int, int]
    resized: tuple[int, int]
    boxes: tuple[Box, ...]


S = TypeVar("S", bound=WindowedSettings)
E = TypeVar("E", bound=WindowedEncoding)
DrawWindow = Callable[[int, slice], Tensor]
"""Returns for a window, by its number, the scores (k, h', w') of a slice of the rows, and of the background behind them."""


class WindowedMethod(Generic[S, E]):
    """The flow; a method gives its ``name``, its ``variants``, what it keeps of windows and how it scores them."""

    name: ClassVar[str]
    variants: ClassVar[Mapping[str, Any]]

    def __init__(self, network: WindowedNetwork, settings: S | str = "default") -> None:
        self._network = network
        self.settings: S = choose_settings(self.name, settings, self.variants)

    def draw_windows(self, encoding: E, asked: Asked) -> DrawWindow:
        """What draws the rows, and behind them the background where it is told by a threshold."""
        raise NotImplementedError

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the models with their hashes and tiers."""
        return {"method": self.name, "settings": asdict(self.settings), "models": [self._network.provenance]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same model can share an encoding when their keys are equal."""
        s = self.settings
        return self.name, s.short, s.longest, s.window, s.stride

    def semantic(self, image: Image | E, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it."""
        return self._paint(image, Vocabulary.of(classes))[0]

    def instances(self, image: Image | E, classes: Classes) -> Detections:
        """Take the connected regions of the label map for instances."""
        s, vocabulary = self.settings, Vocabulary.of(classes)
        labels, values = self._paint(image, vocabulary)
        return convert_label_map(labels, values, vocabulary.names, s.connectivity, min_area=s.min_area, most=s.most)

    def encode(self, images: Sequence[Image]) -> list[E]:
        """Look at the windows of each image; one encoding an image, in order."""
        raise NotImplementedError

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        raise NotImplementedError

    def _cut(self, image: Image) -> tuple[WindowedEncoding, list[Tensor]]:
        """How an image is cut, and its normalized windows (n, 3, h', w'), a few at a time, padded to whole patches."""
        s = self.settings
        resized = fit_released(image.size, s.short, s.longest)
        boxes = lay_windows(resized, s.window, s.stride)
        windows = cut_windows(normalize_released(image, resized, self._network.device), boxes)
        return WindowedEncoding(image.size, resized, boxes), list(
            torch.split(pad_to_patches(windows, self._network.patch), _AT_ONCE)
        )

    def _paint(self, image: Image | E, vocabulary: Vocabulary) -> tuple[LabelMap, Tensor]:
        """The label map, and the score (H, W) of each pixel's name."""
        asked = self.list_rows(vocabulary)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        owner = [*asked.owner, *([asked.background] if self._is_apart(asked) else [])]
        best, values = find_strongest(self._drawing(encoding, asked), len(owner), encoding.size)
        labels = torch.tensor(owner, device=best.device)[best]
        return LabelMap(labels.cpu().numpy().astype("int32"), asked.names, asked.background), values

    def list_rows(self, vocabulary: Vocabulary) -> Asked:
        """The rows to score; a listed background is none where a threshold tells it, unless it is all that is listed."""
        asked = self.settings.background.list_rows(vocabulary)
        kept = [k for k, owner in enumerate(asked.owner) if owner != asked.background]
        if not self._is_apart(asked) or not kept:
            return asked
        rows = Vocabulary(tuple(asked.rows.names[k] for k in kept), tuple(asked.rows.synonyms[k] for k in kept))
        return replace(asked, rows=rows, owner=tuple(asked.owner[k] for k in kept))

    def _is_apart(self, asked: Asked) -> bool:
        """Whether the background is scored behind the rows."""
        return self.settings.background.rule == "threshold" and asked.background is not None

    def _drawing(self, encoding: E, asked: Asked) -> Draw:
        """What draws a part of the rows on the pixels of the image, (k, H, W)."""
        scores = self.draw_windows(encoding, asked)

        def draw(part: slice) -> Tensor:
            maps = average_windows(
                lambda n: scores(n, part), encoding.boxes, encoding.resized, part.stop - part.start, self._network.device
            )
            return resize_maps(maps, encoding.size)

        return draw
