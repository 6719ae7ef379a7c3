"""What every test is run with: caches and homes of its own, so that none reads or writes the user's, and a plain terminal."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: threads of their own would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.skips"]

_HOMES = {"ANNOFREE_HOME": "annofree", "HF_HOME": "huggingface", "HF_HUB_CACHE": "huggingface/hub"}
_OF_A_TERMINAL = (
    *("COLUMNS", "LINES", "TERMINAL_WIDTH", "JUPYTER_COLUMNS", "JUPYTER_LINES"),
    *("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
)
"""What changes how help and tables are printed: how wide, and with colours or not."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Set this up before tests are collected, for libraries look at the environment as they are imported."""
    homes = tempfile.TemporaryDirectory(prefix="annofree-tests-", ignore_cleanup_errors=True)
    session.config.add_cleanup(homes.cleanup)
    os.environ.update({variable: str(Path(homes.name, name)) for variable, name in _HOMES.items()})
    for variable in _OF_A_TERMINAL:
        os.environ.pop(variable, None)
    # no example fails because the machine is slow, and none is kept from one session to the next
    settings.register_profile("annofree", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    settings.load_profile("annofree")


_NUMERIC = (
    *("clues", "detections", "detectors", "features", "fragments", "methods", "ops", "parity", "testing"),
    *("training/test_dino_views.py", "training/test_found.py", "training/test_set_losses.py"),
    *("training/test_selfmask.py", "training/test_spectral_voting.py", "training/test_zutis.py"),
)
"""Tests whose results hang on kernels; those that train the tiny models are long, and run once."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the numeric tests, which `.ci/run` runs again as on other processors."""
    rooms = [config.rootpath / "tests" / name for name in _NUMERIC]
    for item in items:
        if any(item.path.is_relative_to(room) for room in rooms):
            item.add_marker(pytest.mark.numeric)
