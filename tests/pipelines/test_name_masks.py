"""``annofree.name_masks`` and ``annofree name``: stored masks get names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import annofree
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.class_agnostic.named_masks import NamedMasks, NamedMasksSettings
from annofree.methods.class_agnostic.stored_masks import StoredMasks
from annofree.methods.components import Models
from annofree.pipelines.plan import Plan
from annofree.structures import Detections, Image
from annofree.testing.fakes import FakeClip, FakeDino, FakeSam
from annofree.testing.paper_world import COLORS, NAMES, PaperScene, draw_paper_scenes

ALL = ", ".join(NAMES)
SCENES = [scene for scene in draw_paper_scenes() if min(scene.image.size) > 8]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method on the fakes, which read the paper world perfectly."""
    models = Models("tiny", "cpu", objectness="none").with_parts(clip=FakeClip(), sam=FakeSam(), dino=FakeDino())
    monkeypatch.setattr(
        MethodSpec, "build", lambda spec, *_: build_method(spec.method, models, spec.variant, {**spec.settings})
    )


def named(scene: PaperScene) -> str:
    return f"{scene.image.id.replace(' ', '-')}.png"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for scene in SCENES:
        PIL.Image.fromarray(scene.image.pixels).save(folder / named(scene))
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The true masks of all scenes as somebody else's COCO file, all called thing."""
    file = CocoFile.with_categories({7: "thing"})
    for scene in SCENES:
        id_ = file.add_image(named(scene), scene.image.size)
        count = len(scene.masks)
        found = Detections.from_masks(scene.masks, [0] * count, np.linspace(0.9, 0.5, count).tolist(), ["thing"])
        file.add_annotations(found.to_coco(id_, [7]))
    file.write(tmp_path / "theirs.json")
    return tmp_path / "theirs.json"


def change(path: Path, what: Callable[[dict[str, Any]], object]) -> None:
    held = json.loads(path.read_text())
    what(held)
    path.write_text(json.dumps(held))


def read_labels(out: Path) -> dict[str, list[str]]:
    file = CocoFile.read(out / "annotations.json")
    names, images = (
        {row["id"]: row[key] for row in rows} for rows, key in ((file.categories, "name"), (file.images, "file_name"))
    )
    found: dict[str, list[str]] = {name: [] for name in images.values()}
    for row in file.annotations:
        found[images[row["image_id"]]].append(names[row["category_id"]])
    return found


@pytest.mark.parametrize("look", ["box", "masked", "pooled"])
@pytest.mark.parametrize("refine", ["none", "box", "box+point"])
def test_masks_of_a_foreign_file_get_their_names(foreign: Path, photos: Path, tmp_path: Path, look: str, refine: str) -> None:
    result = annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out", look=look, refine=refine, overlays=False)
    assert result.failed == {}
    found = read_labels(tmp_path / "out")
    assert {name: sorted(own) for name, own in found.items()} == {named(s): sorted(s.names) for s in SCENES}


def test_masks_of_a_run_get_names_and_others_from_its_encodings(photos: Path, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut", tmp_path / "out"
    annofree.segment(photos, method="discovery", out=cut, variant="lost", overlays=False)
    first = annofree.name_masks(cut, ALL, out=out, keep_encodings=True)
    assert (out / "overlays").is_dir() and first.summary["provenance"]["masks"]["made_by"]["method"] == "discovery"
    again = annofree.name_masks(cut, ALL, out=out, keep_encodings=True)
    assert again.was_complete
    other = annofree.relabel(out, ALL, out=tmp_path / "other")
    assert other.summary["instances"] == first.summary["instances"] > 0
    assert read_labels(tmp_path / "other") == read_labels(out)


def test_a_run_of_other_masks_is_refused(foreign: Path, photos: Path, tmp_path: Path) -> None:
    annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out", overlays=False)
    change(foreign, lambda held: held["annotations"].pop())
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(InputError, match=r"asked for something else: .*sha256"):
        annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out", overlays=False)


def test_scores_are_the_geometric_mean_or_the_own(foreign: Path) -> None:
    scene = next(s for s in SCENES if len(s.masks) == 2 and len(set(s.names)) == 2)
    image = Image(scene.image.pixels, named(scene))
    own = NamedMasks(FakeClip(), StoredMasks(foreign), NamedMasksSettings(score="own")).instances(image, ALL)
    mean = NamedMasks(FakeClip(), StoredMasks(foreign)).instances(image, ALL)
    assert own.scores.tolist() == pytest.approx([0.9, 0.5])
    assert mean.scores.tolist() == pytest.approx([0.9**0.5, 0.5**0.5], abs=1e-3)  # the names are all but certain


def test_what_a_distractor_wins_is_not_told(foreign: Path) -> None:
    scene = next(s for s in SCENES if set(s.names) >= {"apple"})
    image = Image(scene.image.pixels, named(scene))
    others = tuple(name for name in NAMES if name != "apple")
    found = NamedMasks(FakeClip(), StoredMasks(foreign), NamedMasksSettings(negatives=others)).instances(image, "apple")
    assert len(found) == scene.names.count("apple") and found.names == ("apple",)
    both = NamedMasks(FakeClip(), StoredMasks(foreign)).verify(
        NamedMasks(FakeClip(), StoredMasks(foreign)).encode([image])[0], annofree.Vocabulary.of("apple"), ["car"]
    )
    assert both.names == ("apple", "car") and len(both) == len(scene.masks)


def test_images_without_masks_are_empty_and_what_is_odd_is_counted(foreign: Path, photos: Path, tmp_path: Path) -> None:
    def spoil(held: dict[str, Any]) -> None:
        rows = [row for row in held["annotations"] if row["image_id"] != 1]
        rows[0]["iscrowd"], rows[1]["score"] = 1, 1.02
        del rows[2]["score"]
        held["annotations"] = rows

    change(foreign, spoil)
    out = annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out", overlays=False)
    assert read_labels(tmp_path / "out")[named(SCENES[0])] == []
    said = " ".join(out.summary["remarks"])
    assert all(f"1 of the stored masks {what}" in said for what in ("are crowds", "have no score", "score more than 1"))


def test_masks_of_another_size_and_images_that_are_gone_fail_by_name(foreign: Path, photos: Path, tmp_path: Path) -> None:
    one, two = named(SCENES[0]), named(SCENES[1])
    PIL.Image.open(photos / one).resize((10, 20)).save(photos / one)
    (photos / two).unlink()
    result = annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out", overlays=False)
    assert set(result.failed) == {str(photos / one), str(photos / two)}
    width, height = SCENES[0].image.size[::-1]
    assert f"expected masks of {one} at its size, 10x20, got {width}x{height}" in result.failed[str(photos / one)]


def test_boxes_alone_need_a_sam(foreign: Path, photos: Path, tmp_path: Path) -> None:
    change(foreign, lambda held: [row.pop("segmentation") for row in held["annotations"]])
    plain = annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "a", overlays=False)
    assert "boxes alone; --refine box draws" in next(iter(plain.failed.values()))
    drawn = annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "b", refine="box", overlays=False)
    assert drawn.failed == {} and drawn.summary["instances"] == sum(len(s.masks) for s in SCENES)


def _resize_first(held: dict[str, Any]) -> None:
    held["annotations"][0]["segmentation"]["size"] = [4, 4]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_resize_first, f"image {named(SCENES[0])}: expected masks of the size"),
        (lambda held: held["annotations"][0].update(score=-1), f"scores from 0 to 1 .* -1.0 in image {named(SCENES[0])}"),
        (lambda held: held["images"].append({**held["images"][0], "id": 99}), "each image once .* twice"),
        (lambda held: held["images"][0].update(file_name="../a.png"), "lies outside"),
        (lambda held: held.update(images=[], annotations=[]), "expected images in"),
        (lambda held: held.pop("images"), "images"),
        (lambda held: [row.update(file_name=f"no/{row['file_name']}") for row in held["images"]], "none is there, not even"),
    ],
)
def test_what_is_no_foreign_file_is_refused(foreign: Path, photos: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    change(foreign, spoil)
    with pytest.raises(InputError, match=message):
        annofree.name_masks(foreign, ALL, images=photos, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"look": "boxes"}, "unknown look 'boxes'; did you mean 'box'"),
        ({"refine": "all"}, "unknown refinement"),
        ({"score": "mean"}, "unknown score"),
        ({"images": None}, "expected --images"),
        ({"limit": 0}, "limit"),
    ],
)
def test_wrong_options_are_refused(foreign: Path, photos: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        annofree.name_masks(foreign, ALL, **{"images": photos, "out": tmp_path / "out", **options})


def test_results_go_neither_among_the_masks_nor_the_images(foreign: Path, photos: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    annofree.segment(photos, method="discovery", out=cut, overlays=False)
    for masks, out in ((cut, cut), (foreign, photos)):
        with pytest.raises(InputError, match="expected another folder for results"):
            annofree.name_masks(masks, ALL, images=photos, out=out)
    with pytest.raises(InputError, match="expected the folder of a run with instances"):
        annofree.name_masks(photos, ALL, images=photos, out=tmp_path / "out")


def test_stored_masks_are_a_method_like_any_other(foreign: Path, tmp_path: Path) -> None:
    place = tmp_path / "a+b.json"
    foreign.rename(place)
    plan = Plan(("instance",), str(place), "box", "tiny", "found", "cpu")
    assert plan.resolve_methods() == {"instance": str(place)}
    assert {card.name for card in plan.list_cards()} == {"tiny-clip", "tiny-sam"}
    plain = Plan(("instance",), str(place), "default", "tiny", "found", "cpu")
    assert {card.name for card in plain.list_cards()} == {"tiny-clip"}
    assert "settings" not in plain.resume_key()


def test_more_masks_than_are_decoded_at_once_keep_their_order(tmp_path: Path) -> None:
    file, pixels = CocoFile.with_categories({1: "thing"}), np.full((16, 600, 3), 128, np.uint8)
    image = file.add_image("wide.png", (16, 600))
    colors = [COLORS[NAMES[k % 3]][0] for k in range(70)]
    for k, color in enumerate(colors):
        pixels[:8, 8 * k : 8 * k + 8] = color
        mask = np.zeros((1, 16, 600), bool)
        mask[0, :8, 8 * k : 8 * k + 8] = True
        file.add_annotations(Detections.from_masks(mask, [0], [1 - k / 100], ["thing"]).to_coco(image, [1]))
    file.write(tmp_path / "many.json")
    settings = NamedMasksSettings(look="masked", score="own", refine="box")
    found = NamedMasks(FakeClip(), StoredMasks(tmp_path / "many.json"), settings, FakeSam()).instances(
        Image(pixels, "wide.png"), ALL
    )
    assert found.labels.tolist() == [NAMES[k % 3] for k in range(70)]
    assert found.boxes[:, 0].tolist() == [8.0 * k for k in range(70)]
