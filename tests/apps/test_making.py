"""What recipes make before they measure: the figures of its stages, and all of it in the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.cli import Cli
from tests.support.drawing import drawing
from tests.support.recipes import recipe_head, reproduced

from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.pipelines.training.stages import read_making
from annofree.pipelines.training.zutis_stages import measure_archive, measure_masks
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask
from annofree.structures import Detections

VALIDATION = Path(__file__).parents[2] / "examples" / "validation"


def truth_of_two() -> CocoFile:
    """a.jpg: a dog on the left half; b.jpg: a dog on the upper half and a cat on the lower one."""
    truth = CocoFile.with_categories({1: "dog", 2: "cat"})
    left, upper = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2], upper[:2] = True, True
    for name, masks, ids in (("a.jpg", [left], [0]), ("b.jpg", [upper, ~upper], [0, 1])):
        found = Detections.from_masks(np.stack(masks), ids, [1.0] * len(ids), ["dog", "cat"])
        truth.add_annotations(found.to_coco(truth.add_image(name, (4, 4)), [1, 2]))
    return truth


ARCHIVE = Archive(
    ("dog", "cat"),
    {"dog": (Member("x/a.jpg", 0.9), Member("x/b.jpg", 0.8)), "cat": (Member("x/a.jpg", 0.3), Member("x/b.jpg", 0.2))},
    {"x/a.jpg": "/x/a.jpg", "x/b.jpg": "/x/b.jpg"},
)


def test_precision_counts_the_members_that_show_their_name() -> None:
    assert measure_archive(ARCHIVE, truth_of_two()) == {"images retrieved": 2.0, "retrieval precision": 75.0}


def test_masks_are_compared_with_all_objects_of_a_picture(tmp_path: Path) -> None:
    quarter = np.zeros((1, 4, 4), bool)
    quarter[0, :, :1] = True
    rle = Detections.from_masks(quarter, [0], [1.0], ["thing"]).to_coco(1, [1])[0]["segmentation"]
    with MaskWriter(tmp_path) as writer:
        writer.add(PseudoMask("x/a.jpg", rle, 0.5))
        writer.add(PseudoMask("x/b.jpg", {"size": [4, 4], "counts": "0`0"}, 0.5))  # everything
    found = measure_masks(ARCHIVE, tmp_path, truth_of_two())
    assert found == {"mask IoU": 75.0, "IoU of everything": 75.0}  # (1/2 + 1) / 2, and the same by chance


def test_masks_of_nothing_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected masks of images whose truth is known"):
        measure_masks(ARCHIVE, tmp_path, truth_of_two())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"what": "zutys"}, "unknown thing to make 'zutys'; did you mean 'zutis'"),
        ({"what": "zutis", "pictures": 4, "k": 1, "train": {"a": {}}, "colour": 3}, "expected the settings of zutis.*colour"),
        ({"what": "zutis", "pictures": 4, "k": 1, "train": {}}, "expected a network to train"),
    ],
)
def test_what_cannot_be_made_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_making(table)


HEAD = {"world": "emoji", "truth": f"{VALIDATION}/truth.json", "images": f"{VALIDATION}/images", "group_by": "split"}
SECONDS = "all seconds an image"
RECIPE = f"""{recipe_head(title="ZUTIS, smallest", tier="S1", tolerance=100, **HEAD)}
[make]
what = "zutis"
pictures = 40
side = 64
k = 2
expected = {{ "retrieval precision" = 50.0 }}

[make.common]
clip = "tiny-clip-vit"
steps = 2
batch = 2
scenes = {{ crop = 64, images = [1, 2] }}
network = {{ queries = 4, decoder_heads = 4, decoder_ffn = 16, decoder_layers = 2 }}

[make.train.whole]

[make.train.unseen]
exclude = ["cat"]

[[run]]
name = "instances"
method = "zutis"
parts = {{ zutis = "made/whole" }}

[[run]]
name = "label maps"
task = "semantic"
method = "zutis"
parts = {{ zutis = "made/whole" }}

[[run]]
name = "unseen"
method = "zutis"
names = ["cat"]
parts = {{ zutis = "made/unseen" }}

[[run]]
name = "MaskCLIP on the same encoder"
method = "maskclip"
parts = {{ clip = "tiny-clip-vit" }}
"""


@drawing
def test_all_of_zutis_in_the_smallest_size(cli: Cli, tmp_path: Path) -> None:
    figures, out = reproduced(cli, RECIPE, tmp_path), tmp_path / "out"
    assert 0 < figures["what was made"]["retrieval precision"] <= 100
    assert "all mIoU" in figures["label maps"] and "all AP" in figures["unseen"]
    assert json.loads((out / "unseen" / "card.json").read_text())["name"] == "unseen"
    before = (out / "whole" / "model.safetensors").stat().st_mtime_ns
    again = reproduced(cli, RECIPE, tmp_path, "--only", "instances")
    assert (out / "whole" / "model.safetensors").stat().st_mtime_ns >= before
    assert again["instances"] == figures["instances"] | {SECONDS: again["instances"][SECONDS]}


SMALLEST = f"""{recipe_head(title="ReCo and NamedMask, smallest", tier="S1", tolerance=100, **HEAD)}
[make]
what = "namedmask"
pictures = 40
side = 64
k = 2

[make.common]
steps = 2
batch = 2
scenes = {{ crop = 64 }}
network = {{ backbone = "clip-resnet", layers = [1, 1, 1, 1], width = 8, channels = 8, fine = 4 }}

[make.train.one]

[[run]]
name = "ReCo"
method = "reco"
names = ["cat", "bus"]
settings = {{ references = {{ side = 64 }} }}
parts = {{ archive = "made/archive" }}

[[run]]
name = "NamedMask"
task = "semantic"
method = "namedmask"
parts = {{ namedmask = "made/one" }}
"""


@drawing
def test_all_of_reco_and_namedmask_in_the_smallest_size(cli: Cli, tmp_path: Path) -> None:
    figures, out = reproduced(cli, SMALLEST, tmp_path), tmp_path / "out"
    assert "all AP" in figures["ReCo"] and "all mIoU" in figures["NamedMask"]
    assert json.loads((out / "one" / "card.json").read_text())["name"] == "one"
    assert len(list((out / "archive" / "references").iterdir())) >= 2
    # the folders are methods
    for method in ("archive", "one"):
        asked = ("segment", "examples/scenes/oranges.jpg", "--classes", "orange, cat", "--task", "semantic", "--models", "tiny")
        said = cli(*asked, "--method", out / method, "--out", tmp_path / f"run-{method}", "--device", "cpu")
        assert said.code == 0, said.err
    said = cli(*asked, "--method", out / "archive", "--classes", "oranje", "--out", tmp_path / "other", "--device", "cpu")
    assert said.code == 2 and "unknown name of the archive 'oranje'; did you mean 'orange'" in said.err
    assert "Traceback" not in said.err
