"""``annofree segment`` with methods that need no names, from the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.cli import Cli

import annofree
from annofree.errors import InputError

SCENE = "examples/scenes/oranges.jpg"


@pytest.mark.parametrize(
    ("method", "variant"), [("maskcut", "cells"), ("discovery", "lost"), ("maskdistill", "default"), ("sam_everything", "fast")]
)
def test_things_are_found_without_names(cli: Cli, tmp_path: Path, method: str, variant: str) -> None:
    out = tmp_path / "out"
    command = ["segment", SCENE, "--models", "tiny", "--method", method, "--variant", variant, "--device", "cpu", "--out", out]
    assert cli(*command).code == 0
    written = json.loads((out / "annotations.json").read_text())
    assert [c["name"] for c in written["categories"]] == ["object"] and written["annotations"]
    again = cli(*command)
    assert again.code == 0, "the same command finds the run complete"
    (found,) = annofree.segment(SCENE, method=method, variant=variant, models="tiny", device="cpu")
    assert found.detections is not None and len(found.detections) == len(written["annotations"])
    (named,) = annofree.segment(SCENE, "fruit", method=method, variant=variant, models="tiny", device="cpu")
    assert named.detections is not None and set(named.detections.labels.tolist()) == {"fruit"}


def test_names_are_asked_for_where_they_are_needed(cli: Cli, tmp_path: Path) -> None:
    refused = cli("segment", SCENE, "--models", "tiny", "--out", tmp_path / "out")
    assert refused.code == 2 and "--classes" in refused.err
    with pytest.raises(InputError, match="maskcut, discovery, maskdistill, fragments, sam_everything need none"):
        annofree.segment(SCENE, models="tiny")
    both = cli("segment", SCENE, "--method", "maskcut", "--classes", "a, b", "--models", "tiny", "--out", tmp_path / "out")
    assert both.code == 2 and "expected one name, such as object" in both.err


def test_masks_without_names_are_named(cli: Cli, tmp_path: Path) -> None:
    cut, out, review = tmp_path / "cut", tmp_path / "out", tmp_path / "review"
    assert cli("segment", SCENE, "--models", "tiny", "--method", "discovery", "--device", "cpu", "--out", cut).code == 0
    command = ["name", cut, "--classes", "orange, elephant", "--models", "tiny", "--device", "cpu", "--policy", "all"]
    said = cli(*command, "--refine", "box", "--out", out, "--json")
    assert said.code == 0 and json.loads(said.out)["instances"] == 1
    held = json.loads((out / "run.json").read_text())
    assert [model["name"] for model in held["provenance"]["models"]] == ["tiny-clip", "tiny-sam", "tiny-dino"]
    assert held["settings"]["settings"] == {"look": "box", "score": "geometric"} and held["settings"]["variant"] == "box"
    assert cli("export", out, "--format", "voc", "--out", tmp_path / "voc").code == 0
    refused = cli("review", out, "--look", "flip", "--out", review)
    assert refused.code == 2 and "stored masks" in refused.err
