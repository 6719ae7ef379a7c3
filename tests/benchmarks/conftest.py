"""The benchmark that a file of tests is about."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> ModuleType:
    """The module benchmarks/NAME.py, for test_NAME.py and test_NAME_benchmark.py."""
    return import_module(f"benchmarks.{request.path.stem.removeprefix('test_').removesuffix('_benchmark')}")
