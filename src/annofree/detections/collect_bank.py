"""Collecting a bank from all images of a folder, in memory that does not grow with the folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.detections.bank import Bank, BankSettings, Named
from annofree.detections.mask_shapes import SIDE, measure_shapes
from annofree.errors import InputError
from annofree.structures import BoolArray

__all__ = ["collect_bank"]


class _Row(NamedTuple):
    """A candidate as it is kept; rows sort by falling score, then by who came first."""

    score: float
    order: int
    image: int
    feature: Tensor
    shape: Tensor
    aspect: float


@dataclass
class _Strongest:
    """The strongest rows of one name, a few more than ``most`` in between."""

    most: int
    rows: list[_Row]

    def add(self, row: _Row) -> None:
        self.rows.append(row)
        if len(self.rows) >= 2 * self.most:
            self.settle()

    def settle(self) -> None:
        self.rows = sorted(self.rows, key=lambda row: (-row.score, row.order))[: self.most]


def collect_bank(images: Iterable[Named], settings: BankSettings) -> Bank:
    """Gather the strongest candidates of each name, told and not told, from the candidates of image after image.

    The same images in the same order give the same bank.  Raises InputError where nothing is told surely enough to refer to.
    """
    kept: dict[tuple[str, bool], _Strongest] = {}
    count = 0
    for count, named in enumerate(images, 1):
        told = _find_told(named, settings)
        features = F.normalize(named.features.float().cpu(), dim=1).half()  # as small as on disk
        shapes, aspects = measure_shapes(named.candidates.rles)
        scores, ids = named.candidates.scores.tolist(), named.candidates.class_ids.tolist()
        for k, place in enumerate(
            (named.candidates.names[name], bool(is_told)) for name, is_told in zip(ids, told, strict=True)
        ):
            row = _Row(scores[k], count, named.image, features[k].clone(), shapes[k].clone(), float(aspects[k]))
            kept.setdefault(place, _Strongest(settings.per_name, [])).add(row)
    bank = _build(kept, settings)
    if not len(bank.references):
        raise InputError(
            f"expected things to refer to, but none in {count} images is told with a score of {settings.floor:g} or more; "
            "leave the bank out"
        )
    return bank


def _find_told(named: Named, settings: BankSettings) -> BoolArray:
    """Which candidates stay where overlaps are settled, (N)."""
    order = np.argsort(-named.candidates.scores, kind="stable")
    told = np.zeros(len(order), bool)
    told[order[settings.overlaps.select(named.candidates[order])]] = True
    return told


def _build(kept: dict[tuple[str, bool], _Strongest], settings: BankSettings) -> Bank:
    names = tuple(dict.fromkeys(name for name, _ in sorted(kept)))
    rows: list[_Row] = []
    ids: list[int] = []
    told: list[bool] = []
    for (name, is_told), strongest in sorted(kept.items(), key=lambda pair: pair[0]):
        strongest.settle()
        rows += strongest.rows
        ids += [names.index(name)] * len(strongest.rows)
        told += [is_told] * len(strongest.rows)
    features = torch.stack([row.feature for row in rows]).float() if rows else torch.zeros(0, 1)
    shapes = torch.stack([row.shape for row in rows]) if rows else torch.zeros(0, SIDE, SIDE, dtype=torch.uint8)
    scores, aspects = torch.tensor([row.score for row in rows]), torch.tensor([row.aspect for row in rows])
    images = torch.tensor([row.image for row in rows], dtype=torch.int64)
    places, answers = torch.tensor(ids, dtype=torch.int64), torch.tensor(told, dtype=torch.bool)
    return Bank(settings, names, features, places, scores, answers, images, shapes, aspects)
