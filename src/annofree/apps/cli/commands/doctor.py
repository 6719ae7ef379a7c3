"""``annofree doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

from annofree.apps.cli.doctor_text import format_doctor
from annofree.apps.cli.options.common import Json
from annofree.apps.cli.results import print_result
from annofree.pipelines import doctor as pipeline

__all__ = ["doctor"]


def doctor(as_json: Json = False) -> None:
    """Say what this machine has: Python, devices, memory, disk, caches, fonts, models, and what each preset would fetch.

    Example: annofree doctor --json
    """
    found = pipeline.doctor()
    print_result(found, format_doctor(found), as_json)
