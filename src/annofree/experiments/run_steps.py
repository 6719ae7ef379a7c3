"""What a run of a recipe, of either kind, says of what comes after its method, and whether that can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from annofree.errors import InputError, build_unknown_error
from annofree.experiments.clusters import Cluster
from annofree.io.settings_file import check_fields
from annofree.methods.registry import find_method, is_class_agnostic
from annofree.methods.steps.take import Steps

__all__ = ["StepsOfRun", "check_beside"]


class StepsOfRun:
    """A run with fields of these names."""

    name: str
    method: str
    then: Mapping[str, Any]
    cluster: Cluster
    beside: str
    bank: bool
    policy: str | Mapping[str, Any]

    @property
    def steps(self) -> Steps:
        """What comes after the method; raises InputError for a step that is not there."""
        check_fields(Steps, self.then, f"the steps of the run {self.name!r}")
        return Steps(**self.then)

    @property
    def agnostic(self) -> bool:
        """Whether all that it finds stays without names."""
        return (is_class_agnostic(self.method) or self.steps.unnamed) and self.steps.name is None

    def check_steps(self, task: str) -> None:
        """Refuse steps and clusters that cannot follow a method which is asked for a ``task``, before any model is loaded."""
        tasks = find_method(self.method).tasks
        if self.steps.regions and "semantic" not in tasks:
            raise InputError(f"expected a method of label maps for the regions of the run {self.name!r}, got {self.method}")
        if task == "semantic" and self.steps != Steps():
            raise InputError(f"expected steps after a run of instances alone, got them in {self.name!r}, which has label maps")
        if self.cluster and (task != "instance" or not self.agnostic):
            raise InputError(
                f"expected cluster of a run of instances without names, got it in {self.name!r}; a method that gives names, or "
                "a step that does, needs no clusters"
            )

    def check_bank(self) -> None:
        """Refuse a bank of a run whose candidates nobody names, before any model is loaded."""
        if self.bank and self.policy == "all":
            raise InputError(f"expected a policy of the run {self.name!r} that names candidates, such as answer, for its bank")


def check_beside(runs: Sequence[StepsOfRun], timed: Collection[str], how: str) -> None:
    """Refuse a run beside one that is not there, or where one of the two is not ``timed``; ``how`` runs are is told then."""
    for run in runs:
        if run.beside and run.beside not in (names := [other.name for other in runs]):
            raise build_unknown_error(f"run beside {run.name!r}", run.beside, names)
        if run.beside and (lacking := [name for name in (run.name, run.beside) if name not in timed]):
            raise InputError(
                f"expected times of {run.name!r} and of {run.beside!r} beside it, got none of {lacking[0]!r}; {how}"
            )
