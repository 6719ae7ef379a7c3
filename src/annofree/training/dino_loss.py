"""What DINO and iBOT minimise: a student's cross-entropy to the balanced, sharpened outputs of its own moving average.

V views of which the first G are global, B pictures, P masked patches, D embedding, K prototypes.
Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021; Zhou et al., iBOT, ICLR 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Head", "across_views", "cross_entropy", "momentum", "moved", "targets"]

STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.02
"""DINO's teacher goes from 0.04 to 0.07; with few steps its targets then flatten until all are the same."""


class Head(nn.Module):
    """Three layers to a unit vector, and its cosines with unit prototypes: (N, D) to (N, K).

    Before its length is taken each of its numbers is standardised over the batch.  DINO's head for transformers has no such
    step and needs many epochs to leave the state in which all pictures get almost the same vector; minutes are not enough.
    """

    def __init__(self, dimension: int, prototypes: int, hidden: int = 256, bottleneck: int = 64) -> None:
        super().__init__()
        layers = nn.Linear(dimension, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        # almost no eps: below it, outputs could shrink to nothing after all
        self.mlp = nn.Sequential(*layers, nn.BatchNorm1d(bottleneck, 1e-12, affine=False, track_running_stats=False))
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, bottleneck), dim=1))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Return the logits; ``frozen`` gives the prototypes no gradient, as for DINO's first epoch."""
        prototypes = F.normalize(self.prototypes.detach() if frozen else self.prototypes, dim=1)
        return F.normalize(self.mlp(x.float()), dim=1) @ prototypes.T


def momentum(progress: float, first: float) -> float:
    """How much of itself the teacher keeps at each step: from ``first`` to 1 along a cosine.

    >>> momentum(0.0, 0.99), round(momentum(0.5, 0.99), 4), momentum(1.0, 0.99)
    (0.99, 0.995, 1.0)
    """
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def moved(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Move a teacher's parameters towards its student's, keeping the share ``keep`` of its own."""
    for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
        own.lerp_(other, 1 - keep)


@torch.no_grad()
def targets(logits: Tensor, temperature: float = TEACHER_TEMPERATURE, rounds: int = 3) -> Tensor:
    """Distributions (N, K) over prototypes that a teacher's logits mean, such that the batch uses all prototypes alike.

    Columns and rows are brought to equal sums in turn (Sinkhorn and Knopp), which is DINOv2's way of centring: DINO's own, a
    running mean, follows too slowly when a run has a few thousand steps.  Each row sums to one.
    """
    shares = ((logits - logits.max()).float() / temperature).exp().clamp(min=1e-30)
    for _ in range(rounds):
        shares /= shares.sum(0, keepdim=True) * shares.shape[1]
        shares /= shares.sum(1, keepdim=True) * shares.shape[0]
    return shares * len(shares)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy (...) of student logits (..., K) to a teacher's distributions (..., K)."""
    return -(teacher * (student.float() / STUDENT_TEMPERATURE).log_softmax(-1)).sum(-1)


def across_views(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of each student view (V, B, K) to each global view of the teacher (G, B, K) but itself."""
    log_p = (student.float() / STUDENT_TEMPERATURE).log_softmax(-1)
    pairs = -torch.einsum("gbk,vbk->gv", teacher, log_p) / student.shape[1]
    other = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[other].mean()
