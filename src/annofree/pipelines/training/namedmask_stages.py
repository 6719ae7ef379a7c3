"""NamedMask and ReCo from nothing but images and names, in the emoji world: draw, index, retrieve, mask, train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from annofree.pipelines.training.side_by_side import TrainJob
from annofree.pipelines.training.zutis_stages import ZutisMaking
from annofree.training.namedmask.recipe import NamedMaskRecipe
from annofree.training.namedmask.train import fit_namedmask

__all__ = ["NamedMaskMaking"]


@dataclass(frozen=True)
class NamedMaskMaking(ZutisMaking):
    """What ``ZutisMaking`` makes, with networks of NamedMask; ``made/archive`` is what ReCo goes by."""

    # a network for each table, by name: fields of NamedMaskRecipe over those of common
    train: Mapping[str, Mapping[str, Any]]
    # fields of NamedMaskRecipe that all networks share
    common: Mapping[str, Any] = field(default_factory=dict)

    def describe_job(self, fields: Mapping[str, Any]) -> TrainJob:
        """The training of a network of NamedMask."""
        return TrainJob(fit_namedmask, NamedMaskRecipe(**fields))
