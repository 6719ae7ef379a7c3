"""What the package says of itself in its several places is the same."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_types_are_for_those_who_use_it() -> None:
    assert (files("annofree") / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert version("annofree") == PROJECT["version"] == citation["version"]
    assert (citation["cff-version"], citation["license"]) == ("1.2.0", PROJECT["license"])
    assert len(citation["references"]) == 3
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changes and PROJECT["version"] in changes


def test_the_image_is_made_from_what_is_there() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert "USER annofree" in lines and 'ENTRYPOINT ["annofree"]' in lines
