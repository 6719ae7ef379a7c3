"""What recipes make before they measure: data and trained models, each stage resumable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annofree.errors import InputError, build_unknown_error
from annofree.io.settings_file import check_fields
from annofree.pipelines.training.cutler import CutlerMaking
from annofree.pipelines.training.namedmask_stages import NamedMaskMaking
from annofree.pipelines.training.self_training import SelfTrainingMaking
from annofree.pipelines.training.zutis_stages import ZutisMaking

__all__ = ["MAKINGS", "read_making"]

Making = SelfTrainingMaking | CutlerMaking | ZutisMaking

MAKINGS: dict[str, type[Making]] = {
    "self_training": SelfTrainingMaking,
    "cutler": CutlerMaking,
    "zutis": ZutisMaking,
    "namedmask": NamedMaskMaking,
}
"""What can be made, by the word ``what`` of a recipe's table ``make``."""


def read_making(table: Mapping[str, Any]) -> Making:
    """Read a recipe's table ``make``: ``what`` is made, its settings, and the figures ``expected`` of it.

    Raises InputError for what cannot be made and for settings that it does not have.
    """
    settings = {name: value for name, value in table.items() if name not in ("what", "expected")}
    what = str(table.get("what"))
    if what not in MAKINGS:
        raise build_unknown_error("thing to make", what, MAKINGS)
    try:
        check_fields(MAKINGS[what], settings, f"[make] of {what}")
        return MAKINGS[what](**settings)
    except InputError as problem:
        raise InputError(f"expected the settings of {what} in the recipe's table make: {problem}") from None
