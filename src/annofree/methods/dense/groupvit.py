"""GroupViT (Xu et al., CVPR 2022): a network merges patches into eight groups, and each group takes the names it is like.

    window -> groups, and which of them each pixel is of -> likeness of groups to the image's five likeliest names -> best name

G groups, R rows scored, N windows, D embedding, h w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from annofree.clues.background import Asked, Background
from annofree.errors import InputError
from annofree.methods.dense.windowed import (
    DrawWindow,
    WindowedEncoding,
    WindowedMethod,
    WindowedNetwork,
    WindowedSettings,
)
from annofree.ops.grids import resize_maps
from annofree.structures import Classes, Image, Vocabulary

__all__ = ["VARIANTS", "GroupVitEncoding", "GroupVitMethod", "GroupVitSettings", "Grouper", "score_groups"]


class Grouper(WindowedNetwork, Protocol):
    """A network that groups patches, such as ``features.text_supervised.groupvit.GroupVit``."""

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax."""
        ...

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        """What a person should know before trusting this network with these names."""
        ...

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        ...

    def group(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of normalized pixels (B, 3, H, W) unit features of groups (B, G, D) and of the whole (B, D); shares (B, G, h, w)."""
        ...


@dataclass(frozen=True)
class GroupVitSettings(WindowedSettings):
    """What may be chosen, beside what methods with windows share.  Raises InputError for less than one name an image."""

    # ``words`` compete as names do (ours: a list of one name is not all there is); a ``threshold`` of 0.95 as released for VOC
    # and COCO, against which the product of two probabilities is held; ``none``
    background: Background = field(default_factory=Background)
    # names that a window may have at all, the likeliest by the mean of its groups; 5 released
    names: int = 5
    # whether the surest group of a window is a thing even below the threshold (released), though it may have no pixel
    spare_best: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names < 1:
            raise InputError(f"expected at least one name that a window may have, got {self.names}")


_PLAIN = GroupVitSettings()
VARIANTS: Mapping[str, GroupVitSettings] = MappingProxyType(
    {
        "default": _PLAIN,
        "official": replace(_PLAIN, background=Background("threshold", threshold=0.95), spare_best=True),
        "all-named": replace(_PLAIN, background=Background("none")),
    }
)


@dataclass(frozen=True, eq=False)
class GroupVitEncoding(WindowedEncoding):
    """All of an image that needs no class name.

    Of its windows unit features of ``groups`` (N, G, D) and of their mean, ``whole`` (N, D), and ``shares`` (N, G, h, w), how
    much each cell is of each group.  ``patch`` is the px of a cell.
    """

    groups: Tensor
    whole: Tensor
    shares: Tensor
    patch: int


class GroupVitMethod(WindowedMethod[GroupVitSettings, GroupVitEncoding]):
    """Names in, a label map or its regions out, by one ``network`` that reads texts itself."""

    name: ClassVar[str] = "groupvit"
    variants: ClassVar[Mapping[str, Any]] = VARIANTS

    def __init__(self, network: Grouper, settings: GroupVitSettings | str = "default") -> None:
        super().__init__(network, settings)
        self.network = network

    def remarks(self, classes: Classes) -> list[str]:
        """What a person should know before trusting the answer for these names."""
        return self.network.remarks(self.settings.background.list_rows(classes).rows)

    def encode(self, images: Sequence[Image]) -> list[GroupVitEncoding]:
        """Look at the windows of each image; one encoding an image, in order."""
        return [self._encode(image) for image in images]

    def _encode(self, image: Image) -> GroupVitEncoding:
        cut, batches = self._cut(image)
        parts = zip(*map(self.network.group, batches), strict=True)
        groups, whole, shares = (torch.cat(part) for part in parts)
        return GroupVitEncoding(cut.size, cut.resized, cut.boxes, groups, whole, shares, self.network.patch)

    def draw_windows(self, encoding: GroupVitEncoding, asked: Asked) -> DrawWindow:
        """Each pixel has the scores of its group."""
        tables = self.score_windows(encoding, asked)

        def draw(n: int, part: slice) -> Tensor:
            return tables[n][:, part].T[:, self.find_groups(encoding, n)]

        return draw

    def score_windows(self, encoding: GroupVitEncoding, asked: Asked) -> list[Tensor]:
        """How much each group is each row, (G, R) a window; behind the rows 1 for a group that is background, if so told."""
        words = self.network.encode_text(asked.rows).to(encoding.groups)
        score = partial(score_groups, words=words, scale=self.network.scale, most=self.settings.names)
        tables = [score(groups, whole) for groups, whole in zip(encoding.groups, encoding.whole, strict=True)]
        return [self._with_background(t) for t in tables] if self._is_apart(asked) else tables

    def find_groups(self, encoding: GroupVitEncoding, n: int) -> Tensor:
        """The group of each px of the n-th window, (h', w')."""
        shares, patch = encoding.shares[n], encoding.patch
        return resize_maps(shares, (shares.shape[1] * patch, shares.shape[2] * patch)).argmax(0)

    def _with_background(self, table: Tensor) -> Tensor:
        best, bar = table.amax(1, keepdim=True), self.settings.background.threshold
        if self.settings.spare_best:
            bar = min(bar, float(best.max()))
        return torch.cat([table, (best < bar).to(table)], 1)


def score_groups(groups: Tensor, whole: Tensor, words: Tensor, scale: float, most: int) -> Tensor:
    """How much groups (G, D) are each of ``words`` (R, D), (G, R): a probability among all, times one among the likeliest.

    The likeliest are the ``most`` words that the ``whole`` (D) is like; all other words score 0.

    >>> words = torch.eye(3)
    >>> score_groups(words[:2], words[0], words, 100.0, most=1).round(decimals=3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    logits = scale * groups @ words.T
    likely = (whole @ words.T).topk(min(most, len(words))).indices
    among = torch.full_like(logits, -torch.inf)
    among[:, likely] = logits[:, likely]
    return logits.softmax(1) * among.softmax(1)
