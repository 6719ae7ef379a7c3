"""The folder as its bank: what is told of some images names and weighs what looks alike in others; no encoder runs.

    all images, named by text -> of each name the strongest candidates: what is told, and what is not
                              -> told surely: references, whose names are smoothed over their neighbors
    a candidate -> its nearest references vote -> text and bank share the naming
                -> do those of its name have its shape, were its lookalikes told? -> logistic -> its score

An image is no witness of itself, nor of its copies.  This project's own.
M rows of a bank, N candidates of an image, R rows of text that compete, V names of a bank, D embedding, S side of a shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.detections.mask_shapes import compare_shapes, measure_shapes
from annofree.detections.nms import Overlaps
from annofree.detections.verification import Calibration, pick_best_rows
from annofree.structures import Detections, FloatArray

__all__ = ["BANK_SIGNALS", "Bank", "BankCalibration", "BankSettings", "Named", "hash_image"]

BANK_SIGNALS = (
    "score",  # log odds of the candidate's own score, under its name by text
    "share",  # log of the best name's share, by text and bank
    "text",  # log of that name's share by text alone
    "shape",  # how much the references of that name that look most like it have its shape, their mean, 0 .. 1
    "best_shape",  # likewise, the most of them
    "told",  # mean score of the candidates of that name that look like it, what was not told being 0
    "sure",  # their mean score, told or not
)
"""What a logistic with a bank may weigh, in order."""

_TINY = 1e-4
_FAINT = 1e-6  # of a vote, so that no name is ruled out
_SELF = -1.0  # the cosine with what is no witness


@dataclass(frozen=True)
class BankCalibration(Calibration):
    """A logistic of the signals of a bank.

    >>> BankCalibration({"score": 1.0}, 0.0).predict(np.zeros((1, len(BANK_SIGNALS)), np.float32)).tolist()
    [0.5]
    """

    # what may be weighed, in order
    signals: ClassVar[tuple[str, ...]] = BANK_SIGNALS


@dataclass(frozen=True)
class BankSettings:
    """What may be chosen of a bank; all of it is this project's own."""

    # candidates that are kept of a name, the strongest of those that are told and as many of the others
    per_name: int = 100
    # which of two candidates that overlap is told
    overlaps: Overlaps = field(default_factory=lambda: Overlaps(within=0.5, across=0.5, inside=0.7, inside_across=0.7))
    # score from which on what is told is a reference; lookalikes say which of these are none
    floor: float = 0.2
    # references that vote on the name of a candidate, the nearest by cosine
    voters: int = 5
    # what the cosines of voters are multiplied by before their softmax
    vote_scale: float = 30.0
    # part of its neighbors' votes that a reference's own name has at least; else it is an outlier and none; 0 keeps all
    support: float = 0.5
    # cosine from which on the nearest neighbor says anything against a reference
    near: float = 0.7
    # part of a reference's name that its own neighbors decide, 0 .. 1, each of ``steps`` times (label propagation)
    smoothing: float = 0.0
    # how often names are passed on among references
    steps: int = 5
    # part of the naming that is the bank's, 0 .. 1; the rest is text's
    mixture: float = 0.2
    # how much more often told names are taken to come up again: the power of their count over the mean count
    prior: float = 0.0
    # references of its name whose shapes a candidate's is held against
    models: int = 10
    # candidates of its name that a candidate is held against
    witnesses: int = 20
    # what the cosines of both are multiplied by before they weigh
    likeness_scale: float = 40.0
    # how likely a candidate is right; none: its own score, times how much surer its name became, uncalibrated
    calibration: BankCalibration | None = None


@dataclass(frozen=True, eq=False)
class Named:
    """All candidates of an image, however much they overlap, named by text alone and in no order.

    ``candidates`` (N), in the names of the rows that compete; ``features`` (N, D); ``shares`` (N, R) of the rows;
    ``image`` as ``hash_image`` gives it.
    """

    candidates: Detections
    features: Tensor
    shares: Tensor
    image: int

    def rank(self) -> Detections:
        """The candidates, the likeliest first."""
        return self.candidates[np.argsort(-self.candidates.scores, kind="stable")]


def hash_image(whole: Tensor) -> int:
    """A number of an image, the same for its copies, by the feature (D) of the whole, which need not be stored in full."""
    return crc32(whole.detach().cpu().half().numpy().tobytes())


@dataclass(frozen=True, eq=False)
class Bank:
    """Candidates of a folder: unit ``features`` (M, D), ``ids`` (M) of ``names`` (V), ``scores`` (M), which are ``told`` (M).

    ``images`` (M) say where each is from; ``shapes`` (M, S, S) and ``aspects`` (M) are those of ``detections/mask_shapes.py``.
    ``about`` says what else is to be known of where it comes from.
    """

    settings: BankSettings
    names: tuple[str, ...]
    features: Tensor
    ids: Tensor
    scores: Tensor
    told: Tensor
    images: Tensor
    shapes: Tensor
    aspects: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """The settings, how many candidates are kept, how many of each name are references, and what else is known."""
        counts = torch.bincount(self.ids[self.references], minlength=len(self.names)).tolist()
        kept = {name: count for name, count in zip(self.names, counts, strict=True) if count}
        return {"settings": asdict(self.settings), "candidates": len(self.ids), "references": kept, **self.about}

    @cached_property
    def references(self) -> Tensor:
        """Which rows are references, (Q) places of them: told surely, and not contradicted by those that look alike."""
        rows = torch.nonzero(self.told & (self.scores >= self.settings.floor))[:, 0]
        if not len(rows) or not self.settings.support:
            return rows
        near, places, weights = self._find_voters(rows, self.features[rows], self.images[rows])
        own = (weights * (self.ids[rows][places] == self.ids[rows][:, None])).sum(1)
        return rows[(own >= self.settings.support) | (near[:, 0] < self.settings.near)]

    @cached_property
    def smoothed(self) -> Tensor:
        """How much each reference stands for each name, (Q, V): its own, and those of its neighbors in other images."""
        rows, part = self.references, self.settings.smoothing
        own = F.one_hot(self.ids[rows], len(self.names)).float()
        if not len(rows) or not part:
            return own
        near, places, weights = self._find_voters(rows, self.features[rows], self.images[rows])
        parts, names = part * (near[:, :1] > _SELF), own
        for _ in range(self.settings.steps):
            names = (1 - parts) * own + parts * _spread(weights, names, places)
        return names

    @cached_property
    def priors(self) -> Tensor:
        """How much more often each name is told than the mean of them, in logs, (V + 1); the last is for names never told."""
        counts = torch.bincount(self.ids[self.references], minlength=len(self.names) + 1) + 1.0
        return (counts / counts[:-1].mean()).log()

    def name_again(self, named: Named) -> Detections:
        """Name and score the candidates of an image by text and bank, the likeliest first."""
        if not len(named.candidates):
            return named.candidates
        shares = self.compute_shares(named)
        best, scores = pick_best_rows(shares), self._score(named, shares)
        order = np.argsort(-scores, kind="stable")
        return replace(named.candidates, class_ids=best, scores=scores.astype(np.float32))[order]

    def compute_shares(self, named: Named) -> Tensor:
        """The share of each row that competes, (N, R), by text and bank."""
        part, settings = self.settings.mixture, self.settings
        places = self._place_names(named.candidates.names)
        logits = (1 - part) * named.shares.float().cpu().clamp(min=_FAINT).log() + part * self._vote(named, places).log()
        return (logits + settings.prior * self.priors[places]).softmax(1)

    def _vote(self, named: Named, places: Tensor) -> Tensor:
        """The share (N, R) of each competing row in the votes of the nearest references."""
        votes = torch.full((len(named.candidates), len(places)), _FAINT)
        features, images = _unit(named.features), torch.full((len(votes),), named.image)
        _, at, weights = self._find_voters(self.references, features, images)
        votes += _spread(weights, F.pad(self.smoothed, (0, 1)), at)[:, places]  # the last, −1, is of no name
        return votes / votes.sum(1, keepdim=True)

    def _find_voters(self, rows: Tensor, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of some rows those nearest to each feature (N, D): cosines (N, k), places among them, weights that sum to 1 or 0."""
        cosines = features @ self.features[rows].T
        cosines[images[:, None] == self.images[rows]] = _SELF
        near, places = cosines.topk(min(self.settings.voters, len(rows)), 1)
        weights = (self.settings.vote_scale * (near - 1)).exp() * (near > _SELF)
        return near, places, weights / weights.sum(1, keepdim=True).clamp(min=_FAINT**3)

    def _place_names(self, names: Sequence[str]) -> Tensor:
        """Where each of some names is among those of the bank, −1 where it is not."""
        place = {name: k for k, name in enumerate(self.names)}
        return torch.tensor([place.get(name, -1) for name in names])

    def _score(self, named: Named, shares: Tensor) -> FloatArray:
        calibration = self.settings.calibration
        if calibration is not None:
            return calibration.predict(self.compute_signals(named, shares))
        surer = shares.max(1).values / named.shares.float().cpu().max(1).values
        scores: FloatArray = np.clip(named.candidates.scores * surer.numpy(), 0, 1)
        return scores

    def compute_signals(self, named: Named, shares: Tensor) -> FloatArray:
        """What speaks for each candidate's best row of ``shares`` (N, R), by text and bank, (N, S)."""
        features, text, own = _unit(named.features), named.shares.float().cpu(), torch.from_numpy(named.candidates.scores)
        best = shares.argmax(1, keepdim=True)
        cosines = features @ self.features.T
        ids = self._place_names(named.candidates.names)[best]
        cosines[(ids != self.ids) | (self.images == named.image)] = _SELF
        shape, best_shape = self._compare_models(named, cosines)
        told, sure = self._weigh_witnesses(cosines)
        odds = torch.logit(own.float(), _TINY)
        said = ((rows.gather(1, best)[:, 0] + _TINY).log() for rows in (shares, text))
        return torch.stack([odds, *said, shape, best_shape, told, sure], 1).numpy().astype(np.float32)

    def _compare_models(self, named: Named, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """How much the references most like each candidate have its shape: their weighted mean, and the most."""
        near, at = cosines[:, self.references].topk(min(self.settings.models, len(self.references)), 1)
        rows = self.references[at]
        alike = compare_shapes(*measure_shapes(named.candidates.rles), self.shapes[rows], self.aspects[rows])
        return self._average(near, alike), (alike * (near > _SELF)).max(1).values

    def _weigh_witnesses(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """The mean score of the candidates most like each, what was not told being 0, and with their scores all the same."""
        near, at = cosines.topk(min(self.settings.witnesses, len(self.ids)), 1)
        return self._average(near, (self.scores * self.told)[at]), self._average(near, self.scores[at])

    def _average(self, near: Tensor, values: Tensor) -> Tensor:
        weights = (self.settings.likeness_scale * (near - 1)).exp() * (near > _SELF)
        return (weights * values).sum(1) / weights.sum(1).clamp(min=_FAINT**2)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float().cpu(), dim=1)


def _spread(weights: Tensor, names: Tensor, places: Tensor) -> Tensor:
    """The mean of ``names`` (Q, V) at ``places`` (N, k) by weights (N, k), (N, V), without N x k x V values in memory."""
    total = names.new_zeros(len(places), names.shape[1])
    for k in range(places.shape[1]):
        total += weights[:, k, None] * names[places[:, k]]
    return total
