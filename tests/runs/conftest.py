"""The method of the benchmark of kills, which knows flat colours, and runs of it over small images."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.fixture(scope="session")
def kills() -> ModuleType:
    """benchmarks/kills.py."""
    spec = importlib.util.spec_from_file_location("kills_benchmark", KILLS)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills_benchmark"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def images(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-one images, of which number 9 is torn and number 5 has an odd name; not to be written to."""
    folder = tmp_path_factory.mktemp("pictures")
    kills.draw_pictures(folder, 21)
    return folder


Digest = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def undisturbed(kills: ModuleType, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run over all of them leaves."""
    out = tmp_path_factory.mktemp("undisturbed")
    kills.one_run(images, out)
    digest: dict[str, str] = kills.digest(out)
    return digest


@pytest.fixture(scope="session")
def ray_kills() -> ModuleType:
    """benchmarks/ray_kills.py, as workers import it."""
    return importlib.import_module("benchmarks.ray_kills")
