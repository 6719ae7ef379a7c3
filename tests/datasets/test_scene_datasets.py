"""Data sets that name every pixel: their lists, loaders and protocols, in miniature, and their scores by scikit-learn."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from sklearn.metrics import confusion_matrix

from annofree.datasets.names import COCO_IDS, COCO_NAMES, VOC_NAMES
from annofree.datasets.scene_names import (
    ADE20K_NAMES,
    CITYSCAPES_IDS,
    CITYSCAPES_NAMES,
    COCO_SCENERY,
    COCO_STUFF_IDS,
    COCO_STUFF_NAMES,
    CONTEXT_NAMES,
    VOC_SCENERY,
)
from annofree.errors import InputError
from annofree.evaluation.predict_semantic import score_label_maps
from annofree.evaluation.protocols.semantic import PROTOCOLS, find_semantic_protocol
from annofree.experiments.papers import PublishedRecipe
from annofree.formats.label_maps import ClassList, write_label_map
from annofree.methods.build import change_settings
from annofree.methods.registry import find_method
from annofree.structures import VOID, LabelMap
from annofree.testing.tolerances import assert_close

SIZE = (20, 30)
RECIPES = Path(__file__).parents[2] / "recipes" / "semantic"
Values = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Miniature:
    """How a data set's files lie, and what their values mean."""

    # the truth's file and the image's, of an id
    truth: str
    image: str
    ids: tuple[str, ...]
    # value of each class, the background first where there is one
    places: tuple[int, ...]
    # values that are not scored
    void: tuple[int, ...]
    # names of the classes
    names: tuple[str, ...]
    # a list of the ids, where there is one
    listed: str = ""
    # a value that the truth never has
    strange: int = 254
    # the folder of images, where it is given apart
    images: str = ""


_VOC = Miniature(
    "SegmentationClass/{}.png",
    "JPEGImages/{}.jpg",
    ("a", "b"),
    tuple(range(21)),
    (255,),
    ("background", *VOC_NAMES),
    "ImageSets/Segmentation/val.txt",
    strange=21,
)
_CONTEXT = Miniature(
    "SegmentationClassContext/{}.png",
    "JPEGImages/{}.jpg",
    ("a", "b"),
    tuple(range(60)),
    (255,),
    ("background", *CONTEXT_NAMES),
    "ImageSets/SegmentationContext/val.txt",
    strange=60,
)
_STUFF = Miniature(
    "val2017/{}.png",
    "images/{}.jpg",
    ("1", "2"),
    tuple(id_ - 1 for id_ in COCO_STUFF_IDS),
    (255,),
    COCO_STUFF_NAMES,
    strange=11,
    images="images",
)
_OBJECT = Miniature(
    "val2017/{}.png",
    "images/{}.jpg",
    ("1", "2"),
    (150, *(id_ - 1 for id_ in COCO_IDS)),
    (),
    ("background", *COCO_NAMES),
    strange=-1,
    images="images",
)
_ADE = Miniature(
    "annotations/validation/{}.png",
    "images/validation/{}.jpg",
    ("x_1", "x_2"),
    tuple(range(1, 151)),
    (0,),
    ADE20K_NAMES,
    strange=151,
)
_CITY = Miniature(
    "gtFine/val/bonn/{}_gtFine_labelIds.png",
    "leftImg8bit/val/bonn/{}_leftImg8bit.png",
    ("bonn_1", "bonn_2"),
    CITYSCAPES_IDS,
    (0, 1, 9, 29, 255),
    CITYSCAPES_NAMES,
    strange=34,
)
SETS: dict[str, Miniature] = {
    "voc21": _VOC,
    "voc20": _VOC,
    "context60": _CONTEXT,
    "context59": _CONTEXT,
    "coco-object": _OBJECT,
    "coco-stuff": _STUFF,
    "ade20k": _ADE,
    "cityscapes": _CITY,
}
each = pytest.mark.parametrize("name", SETS)


def write_set(root: Path, mini: Miniature) -> list[npt.NDArray[np.int64]]:
    """Write the files of a data set with truths at random, and return the classes, VOID where none is scored."""
    generator, truths = np.random.default_rng(0), []
    for id_ in mini.ids:
        kinds = generator.integers(-1 if mini.void else 0, len(mini.places), SIZE)
        values = np.array([*mini.places, mini.void[0] if mini.void else 0])[kinds].astype(np.uint8)
        for place, drawn in ((mini.truth, values), (mini.image, np.zeros((*SIZE, 3), np.uint8))):
            path = root / place.format(id_)
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(drawn).save(path)
        truths.append(kinds)
    if mini.listed:
        (root / mini.listed).parent.mkdir(parents=True, exist_ok=True)
        (root / mini.listed).write_text("\n".join(mini.ids))
    return truths


def places_of(root: Path, mini: Miniature) -> tuple[Path, Path | None]:
    return (root / "val2017", root / mini.images) if mini.images else (root, None)


def test_lists_have_their_lengths_and_no_name_twice() -> None:
    lists = {59: CONTEXT_NAMES, 171: COCO_STUFF_NAMES, 150: ADE20K_NAMES, 19: CITYSCAPES_NAMES, 26: VOC_SCENERY}
    for count, names in lists.items():
        assert len(names) == len(set(names)) == count
    assert len(CITYSCAPES_IDS) == 19 and len(COCO_STUFF_IDS) == len(set(COCO_STUFF_IDS)) == 171
    assert not {*COCO_SCENERY} & {*COCO_NAMES} and not {*VOC_SCENERY} & {*VOC_NAMES}
    assert list(CONTEXT_NAMES) == sorted(CONTEXT_NAMES) and list(COCO_STUFF_NAMES[80:]) == sorted(COCO_STUFF_NAMES[80:])


def test_names_of_stuff_are_in_the_order_of_the_ids_and_not_of_another_list() -> None:
    ids = dict(zip(COCO_STUFF_NAMES, COCO_STUFF_IDS, strict=True))
    known = {
        "person": 1,
        "toothbrush": 90,
        "banner": 92,
        "clouds": 106,
        "grass": 124,
        "sky-other": 157,
        "tree": 169,
        "wood": 182,
    }
    assert {name: ids[name] for name in known} == known
    ade = {name: k for k, name in enumerate(ADE20K_NAMES, 1)}
    assert [ade[n] for n in ("wall", "person", "car", "boat", "bicycle", "flag")] == [1, 13, 21, 77, 128, 150]


@each
def test_a_loader_reads_what_was_written(name: str, tmp_path: Path) -> None:
    mini, protocol = SETS[name], find_semantic_protocol(name)
    truths = write_set(tmp_path, mini)
    dataset = protocol.open_dataset(*places_of(tmp_path, mini))
    dropped = protocol.background == "ignored"
    assert dataset.names == (mini.names[1:] if dropped else mini.names) and [s.id for s in dataset] == list(mini.ids)
    for sample, kinds in zip(dataset, truths, strict=True):
        expected = np.where(kinds < 0, VOID, kinds - 1 if dropped else kinds)
        assert np.array_equal(sample.read(), expected) and sample.read_image().size == SIZE


@each
def test_scores_are_scikit_learns(name: str, tmp_path: Path) -> None:
    """Predictions in the names of the data set, some in void, against one confusion matrix."""
    mini, protocol = SETS[name], find_semantic_protocol(name)
    write_set(tmp_path / "set", mini)
    dataset, generator = protocol.open_dataset(*places_of(tmp_path / "set", mini)), np.random.default_rng(1)
    truth, said = [], []
    for sample in dataset:
        kinds = sample.read()
        guess = np.where(generator.random(SIZE) < 0.5, kinds, generator.integers(-1, len(dataset.names), SIZE)).astype(np.int32)
        label_map = LabelMap(guess, dataset.names, dataset.background)
        ClassList.of(label_map).write(tmp_path / "said")
        write_label_map(tmp_path / "said" / f"{sample.id}.png", label_map)
        truth.append(kinds.ravel())
        said.append(guess.ravel())
    flat, told = np.concatenate(truth), np.concatenate(said)
    kept = flat != VOID
    matrix = confusion_matrix(flat[kept], told[kept], labels=[*range(len(dataset.names)), VOID]).astype(float)
    hits, count = np.diag(matrix)[:-1], len(dataset.names)
    union = matrix[:count].sum(1) + matrix[:, :count].sum(0) - hits
    found = score_label_maps(tmp_path / "said", dataset, protocol, lambda done, total: None)
    assert_close(found.scores.mean_iou, (hits[union > 0] / union[union > 0]).mean())
    assert 0.2 < (found.scores.mean_iou or 0) < 0.6


@each
def test_what_is_missing_is_said_with_where_it_is_to_be_had(name: str, tmp_path: Path) -> None:
    mini, protocol = SETS[name], find_semantic_protocol(name)
    sites = ("host.robots.ox.ac.uk", "cs.stanford.edu", "cocodataset.org", "groups.csail.mit.edu", "cityscapes-dataset.com")
    with pytest.raises(InputError) as nothing:
        protocol.open_dataset(*places_of(tmp_path, mini))
    assert any(site in str(nothing.value) for site in sites) and "\n" not in str(nothing.value)
    write_set(tmp_path, mini)
    (tmp_path / mini.image.format(mini.ids[1])).unlink()
    with pytest.raises(InputError, match="1 of 2 are missing") as one:
        protocol.open_dataset(*places_of(tmp_path, mini))
    assert any(site in str(one.value) for site in sites)


@pytest.mark.parametrize("name", [n for n, m in SETS.items() if m.strange >= 0])
def test_other_values_are_refused(name: str, tmp_path: Path) -> None:
    mini, protocol = SETS[name], find_semantic_protocol(name)
    write_set(tmp_path, mini)
    path = tmp_path / mini.truth.format(mini.ids[0])
    PIL.Image.fromarray(np.full(SIZE, mini.strange, np.uint8)).save(path)
    dataset = protocol.open_dataset(*places_of(tmp_path, mini))
    with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
        dataset.read_truth(dataset.samples[0])


@pytest.mark.parametrize("name", ["context60", "ade20k", "cityscapes"])
def test_options_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="brings its own"):
        find_semantic_protocol(name).open_dataset(tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"expected a (folder|list) at|files of a data set"):
        write_set(tmp_path, SETS[name])
        find_semantic_protocol(name).open_dataset(tmp_path, None, "nowhere")


@each
def test_recipes_look_as_the_protocol_says(name: str) -> None:
    """Each protocol has a recipe, whose rows take windows and words for the background from its look."""
    path, look = RECIPES / f"{name}.toml", PROTOCOLS[name].look
    assert look is not None and PublishedRecipe.read(path).runs
    runs: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["run"]
    assert [run["method"] for run in runs] == ["clip_diy", "proxy_clip", "region_clip", "maskclip", "clip_surgery"]
    settings, proper = look.to_settings(), {"proxy_clip", "region_clip"}
    for run in runs:
        assert run["protocol"] == name and "expected" not in run
        change_settings(find_method(run["method"]).variants[run["variant"]], run["settings"])
        if run["method"] in proper:
            assert run["settings"] == settings
        elif run["method"] != "clip_diy":
            assert run["settings"] == {"background": settings["background"]}
    assert sorted(p.stem for p in RECIPES.glob("*.toml")) == sorted(SETS)


def test_looks_are_told_beside_scores_and_by_those_protocols_alone() -> None:
    assert {name for name, protocol in PROTOCOLS.items() if "look" in protocol.to_json_dict()} == {*SETS}
    told: Callable[[str], Any] = lambda name: PROTOCOLS[name].to_json_dict()["look"]  # noqa: E731
    assert (told("voc21")["short"], told("ade20k")["short"], len(told("voc21")["words"])) == (336, 448, 26)
