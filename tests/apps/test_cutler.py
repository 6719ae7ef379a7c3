"""CutLER by its commands, and as a recipe makes it, in the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.drawing import drawing
from tests.support.recipes import recipe_head, reproduced

import annofree
from annofree.errors import InputError
from annofree.pipelines.training.stages import read_making

EXAMPLES = Path(__file__).parents[2] / "examples"
VALIDATION = EXAMPLES / "validation"
NETWORK = """
kind = "cascade"
backbone = "clip-resnet"
layers = [1, 1, 1, 1]
width = 8
norm = "frozen"
side = 64
longest = 64
channels = 8
fc = 8
mask_convs = 1
rpn_before = [20, 20]
rpn_after = [10, 10]
roi_batch = 8
score_floor = 0.0
drop_loss = 0.01
"""
TRAINING = f"""
labels = "labels"
out = "round-1"
agnostic = true
steps = 2
batch = 2
warmup = 0
decay_at = [1]
[scenes]
sides = [64]
longest = 64
[network]
{NETWORK}"""


def test_the_commands_lead_from_masks_to_named_things(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(TRAINING, encoding="utf-8")
    photos, tiny = EXAMPLES / "scenes", ("--models", "tiny", "--device", "cpu", "--no-overlays", "--limit", "2")
    rules = ("--agnostic", "--within", "1", "--inside", "1", "--drop-empty", "--sheet", "0")

    def run(*words: object) -> None:
        said = cli(*words)
        assert said.code == 0, said.err

    run("segment", photos, "--method", "maskcut", "--variant", "cells", "--policy", "all", "--out", "run", *tiny)
    run("pseudo-label", "run", *rules, "--out", "labels")
    run("train", "detector", "--config", "recipe.toml", "--labels", "labels", "--out", "round-1")
    run("segment", photos, "--method", "./round-1", "--variant", "all", "--policy", "all", "--out", "run-1", *tiny)
    run("pseudo-label", "run-1", *rules, "--most", "3", "--merge", "labels", "--merge-iou", "0.5", "--out", "labels-1")
    run("train", "detector", "--config", "recipe.toml", "--labels", "labels-1", "--initial", "round-1", "--out", "round-2")
    found = (
        "--method",
        "detector",
        "--variant",
        "all",
        "--models",
        "./round-2",
        "--policy",
        "all",
        "--device",
        "cpu",
        "--limit",
        "2",
    )
    run("segment", photos, *found, "--out", "found")
    run("name", "found", "--classes", "orange, elephant", "--out", "named", *tiny[:-2])
    written = json.loads((tmp_path / "found" / "annotations.json").read_text())
    assert [c["name"] for c in written["categories"]] == ["object"] and written["annotations"]
    first, merged = (json.loads((tmp_path / n / "labels.json").read_text()) for n in ("labels", "labels-1"))
    counts = merged["info"]["counts"]
    assert counts["earlier"] + counts["earlier_gone"] == len(first["annotations"])
    asked = {"method": "detector", "models": "./round-2", "variant": "all", "policy": "all", "device": "cpu", "limit": 2}
    again = [one.detections for one in annofree.segment(photos, **asked)]  # type: ignore[call-overload]
    assert sum(len(d) for d in again if d is not None) == len(written["annotations"])


RECIPE = f"""{recipe_head(
    title="CutLER, smallest", tier="S0", tolerance=100, world="emoji", truth=f"{VALIDATION}/truth.json",
    images=f"{VALIDATION}/images", group_by="split",
)}
[make]
what = "cutler"
scenes = {{ single = 3 }}
side = 96
variant = "cells"
rules = {{ within = 1.0, inside = 1.0, drop_empty = true }}
expected = {{ "round 2 label precision" = 50.0 }}
[make.common]
steps = 2
batch = 2
warmup = 0
decay_at = [1]
scenes = {{ sides = [64], longest = 64 }}
[make.common.network]
{NETWORK}
[[make.rounds]]
[[make.rounds]]
network = {{ drop_loss = 0.0 }}
rules = {{ min_score = 0.0, most = 2 }}
[[run]]
name = "MaskCut"
method = "maskcut"
variant = "cells"
[[run]]
name = "round 2"
method = "detector"
variant = "all"
parts = {{ detector = "made/round-2" }}
"""  # fmt: skip


@drawing
def test_all_of_cutler_in_the_smallest_size(cli: Cli, tmp_path: Path) -> None:
    figures, out = reproduced(cli, RECIPE, tmp_path), tmp_path / "out"
    assert set(figures["what was made"]) == {
        f"round {n} {what}" for n in (1, 2) for what in ("labels", "label precision", "label recall")
    }
    for name in ("MaskCut", "round 2"):
        assert "all class-agnostic AP50" in figures[name] and "all AP50" not in figures[name], "nothing has a name"
    origin = json.loads((out / "round-2" / "training.json").read_text())
    assert origin["recipe"]["network"]["drop_loss"] == 0.0 and origin["labels"]["names"] == ["object"]
    assert json.loads((out / "round-2" / "card.json").read_text())["tier"] == "S0"
    made = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.safetensors"))]
    reproduced(cli, RECIPE, tmp_path, "--only", "round 2")
    assert [path.stat().st_mtime_ns for path in sorted(out.rglob("*.safetensors"))] == made


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"what": "cutler", "scenes": {"single": 1}, "rounds": []}, r"expected a round in the recipe, as \[\[make.rounds\]\]"),
        ({"what": "cutler", "scenes": {"alone": 1}, "rounds": [{}]}, "unknown split 'alone'"),
        ({"what": "cutler", "scenes": {"single": 1}, "rounds": [{}], "colour": 1}, "expected the settings.*colour"),
    ],
)
def test_what_cannot_be_made_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_making(table)
