import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from annofree.datasets.benchmarks.coca import open_coca
from annofree.datasets.benchmarks.coco_object import label_instances, open_coco_instances, open_coco_stuff
from annofree.datasets.benchmarks.cub import open_cub
from annofree.datasets.benchmarks.imagenet_s import open_imagenet_s
from annofree.datasets.benchmarks.png_folder import open_png_folder
from annofree.datasets.benchmarks.semantic import SemanticDataset
from annofree.datasets.benchmarks.voc import open_voc
from annofree.datasets.emoji.semantic import EMOJI_NAMES, label_scene, open_emoji_scenes
from annofree.datasets.emoji.world import Scene, SceneObject
from annofree.datasets.names import COCA_NAMES, COCO_IDS, COCO_NAMES, VOC_NAMES, VOC_SPELLINGS
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.formats.label_maps import ClassList, write_label_map
from annofree.ops.rle import decode_rle, encode_rle
from annofree.structures import VOID, LabelMap

SIZE = (6, 8)
VALIDATION = Path(__file__).parents[2] / "examples" / "validation"


def save(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(path)


def save_photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, "JPEG")


def grid(*values: int) -> npt.NDArray[np.uint8]:
    """A map of SIZE whose columns have these values in turn, the last to the end."""
    row = [values[min(x, len(values) - 1)] for x in range(SIZE[1])]
    return np.array([row] * SIZE[0], np.uint8)


def first_row(dataset: SemanticDataset, sample: int = 0) -> list[int]:
    labels = dataset.read_truth(dataset.samples[sample]).labels
    assert labels.shape == SIZE
    row: list[int] = labels[0].tolist()
    return row


# the lists of names


def test_lists_of_names() -> None:
    assert (len(VOC_NAMES), len(COCO_NAMES), len(COCA_NAMES), len(COCO_IDS)) == (20, 80, 80, 80)
    for names in (VOC_NAMES, COCO_NAMES, COCA_NAMES):
        assert len(set(names)) == len(names)
    assert list(COCA_NAMES) == sorted(COCA_NAMES)
    ids = dict(zip(COCO_NAMES, COCO_IDS, strict=True))
    assert (ids["person"], ids["stop sign"], ids["dining table"], ids["toothbrush"]) == (1, 13, 67, 90)


def test_the_emoji_world_agrees_with_coco() -> None:
    truth = CocoFile.read(VALIDATION / "truth.json")
    ids = dict(zip(COCO_NAMES, COCO_IDS, strict=True))
    assert all(ids[row["name"]] == row["id"] for row in truth.categories)


@pytest.mark.parametrize("paper", VOC_SPELLINGS)
def test_spellings_are_of_names_that_there_are_and_stay_apart(paper: str) -> None:
    asked = SemanticDataset("VOC", VOC_NAMES, None, (), VOC_NAMES).with_spellings(VOC_SPELLINGS[paper]).asked
    assert len(set(asked)) == 20
    with pytest.raises(InputError, match="'sofa bed'"):
        SemanticDataset("VOC", VOC_NAMES, None, (), VOC_NAMES).with_spellings({"sofa bed": "sofa"})


# VOC


def voc_copy(root: Path) -> Path:
    folder = root / "VOCdevkit" / "VOC2012"
    for id_, values in {"2007_000033": (0, 1, 255, 20), "2007_000042": (15,)}.items():
        save_photo(folder / "JPEGImages" / f"{id_}.jpg")
        image = PIL.Image.fromarray(grid(*values))
        image.putpalette(list(range(256)) * 3)
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        image.save(folder / "SegmentationClass" / f"{id_}.png")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000042\n2007_000033\n")
    (lists / "train.txt").write_text("2007_000033\n\n")
    return folder.parent


def test_voc(tmp_path: Path) -> None:
    root = voc_copy(tmp_path)
    dataset = open_voc(root)
    assert [s.id for s in dataset] == ["2007_000042", "2007_000033"]
    assert dataset.names[0] == "background" and dataset.background == 0 and len(dataset.names) == 21
    assert first_row(dataset, 1) == [0, 1, VOID, 20, 20, 20, 20, 20]
    assert dataset.samples[0].read_image().size == SIZE and dataset.samples[0].read_image().id == "2007_000042"
    assert len(open_voc(root / "VOC2012", "train")) == 1


def test_voc_without_its_background(tmp_path: Path) -> None:
    dataset = open_voc(voc_copy(tmp_path)).without_background()
    assert dataset.names == VOC_NAMES and dataset.asked == VOC_NAMES and dataset.background is None
    assert first_row(dataset, 1) == [VOID, 0, VOID, 19, 19, 19, 19, 19]
    assert dataset.without_background() is dataset


def test_voc_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ImageSets.Segmentation, and there is none; the layout is VOC2012/JPEGImages"):
        open_voc(tmp_path)
    root = voc_copy(tmp_path)
    with pytest.raises(InputError, match=r"test\.txt, but it cannot be read"):
        open_voc(root, "test")
    (root / "VOC2012" / "SegmentationClass" / "2007_000042.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 are missing, .*2007_000042\.png"):
        open_voc(root)


def test_voc_refuses_other_indices(tmp_path: Path) -> None:
    root = voc_copy(tmp_path)
    save(root / "VOC2012" / "SegmentationClass" / "2007_000042.png", grid(21))
    dataset = open_voc(root)
    with pytest.raises(InputError, match="indices from 0 to 20, or 255"):
        dataset.read_truth(dataset.samples[0])


# COCO-Object


def rectangle(x0: int, x1: int, category: int, image: int = 1, form: str = "rle", **more: Any) -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8)
    mask[:, x0:x1] = 1
    drawn: Any
    if form == "polygon":
        drawn = [[x0, 0, x1, 0, x1, SIZE[0], x0, SIZE[0]]]
    elif form == "plain":
        counts = [x0 * SIZE[0], (x1 - x0) * SIZE[0], (SIZE[1] - x1) * SIZE[0]]
        drawn = {"size": list(SIZE), "counts": counts}
    else:
        rle = encode_rle(mask)
        drawn = {"size": rle["size"], "counts": rle["counts"].decode()}
    return {"image_id": image, "category_id": category, "segmentation": drawn, **more}


def instances(root: Path, *rows: dict[str, Any]) -> Path:
    file = CocoFile.with_categories({18: "dog", 1: "person"})
    for name in ("deep/a.jpg", "b.jpg"):
        file.add_image(name, SIZE)
        save_photo(root / "images" / name)
    file.add_annotations(rows)
    file.write(root / "instances.json")
    return root / "instances.json"


@pytest.mark.parametrize("form", ["rle", "plain", "polygon"])
def test_the_first_instance_wins_and_crowds_count(tmp_path: Path, form: str) -> None:
    rows = [rectangle(0, 3, 18, form=form), rectangle(2, 5, 1, form=form), rectangle(6, 8, 1, form="plain", iscrowd=1)]
    dataset = open_coco_instances(instances(tmp_path, *rows), tmp_path / "images")
    assert dataset.names == ("background", "dog", "person") and dataset.background == 0
    assert first_row(dataset) == [1, 1, 1, 2, 2, 0, 2, 2]
    assert first_row(dataset, 1) == [0] * 8
    assert [s.id for s in dataset] == ["deep/a", "b"] and dataset.samples[0].read_image().size == SIZE


def test_instances_without_pictures_can_be_scored_but_not_run(tmp_path: Path) -> None:
    dataset = open_coco_instances(instances(tmp_path, rectangle(0, 3, 18)))
    assert first_row(dataset)[:4] == [1, 1, 1, 0]
    with pytest.raises(InputError, match="--images"):
        dataset.samples[0].read_image()


def test_instances_that_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="category_id"):
        label_instances([rectangle(0, 2, 7)], SIZE, {1: 1})
    with pytest.raises(InputError, match="expected a segmentation"):
        label_instances([{"image_id": 5, "category_id": 1}], SIZE, {1: 1})
    with pytest.raises(InputError, match=r"mask of size .9, 9., got .6, 8."):
        label_instances([rectangle(0, 2, 1)], (9, 9), {1: 1})
    with pytest.raises(InputError, match="polygons or run lengths in image 5"):
        label_instances([{"image_id": 5, "category_id": 1, "segmentation": {"size": [6, 8]}}], SIZE, {1: 1})
    path = instances(tmp_path)
    (tmp_path / "images" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 are missing, .*b\.jpg"):
        open_coco_instances(path, tmp_path / "images")


def test_pixel_maps_of_coco_stuff(tmp_path: Path) -> None:
    # person is COCO's 1, traffic light 10, stop sign 13, toothbrush 90; 91 and more is stuff
    save(tmp_path / "val2017" / "000000000139.png", grid(0, 9, 12, 89, 91, 181, 255))
    save_photo(tmp_path / "images" / "000000000139.jpg")
    dataset = open_coco_stuff(tmp_path / "val2017", tmp_path / "images")
    assert len(dataset.names) == 81 and dataset.names[12] == "stop sign"
    assert first_row(dataset) == [1, 10, 12, 80, 0, 0, 0, 0]
    assert first_row(open_coco_stuff(tmp_path / "val2017", unlabeled="void")) == [1, 10, 12, 80, 0, 0, VOID, VOID]


def test_pixel_maps_without_their_pictures(tmp_path: Path) -> None:
    save(tmp_path / "val2017" / "1.png", grid(0))
    with pytest.raises(InputError, match=r"1 of 1 are missing, .*1\.jpg.*the layout is stuffthingmaps"):
        open_coco_stuff(tmp_path / "val2017", tmp_path)
    with pytest.raises(InputError, match="none were found"):
        (tmp_path / "empty").mkdir()
        open_coco_stuff(tmp_path / "empty", tmp_path)


def test_both_truths_of_coco_have_the_same_names(tmp_path: Path) -> None:
    save(tmp_path / "val2017" / "1.png", grid(0))
    file = CocoFile.with_categories(dict(zip(COCO_IDS, COCO_NAMES, strict=True)))
    file.add_image("1.jpg", SIZE)
    file.write(tmp_path / "instances.json")
    assert open_coco_stuff(tmp_path / "val2017").names == open_coco_instances(tmp_path / "instances.json").names


# CoCA, CUB, ImageNet-S


def test_coca(tmp_path: Path) -> None:
    for group, name in (("alarm clock", "a"), ("Accordion", "b")):
        save_photo(tmp_path / "image" / group / f"{name}.jpg")
        save(tmp_path / "binary" / group / f"{name}.png", grid(0, 255, 127, 128))
    dataset = open_coca(tmp_path)
    assert [s.id for s in dataset] == ["Accordion/b", "alarm clock/a"] and len(dataset.names) == 81
    assert first_row(dataset, 0) == [0, 1, 0, 1, 1, 1, 1, 1]
    assert first_row(dataset, 1) == [0, 4, 0, 4, 4, 4, 4, 4]


def test_coca_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the layout is CoCA/image/CLASS"):
        open_coca(tmp_path)
    save_photo(tmp_path / "image" / "whisk" / "a.jpg")
    with pytest.raises(InputError, match="1 of 1 are missing"):
        open_coca(tmp_path)
    save_photo(tmp_path / "image" / "not one" / "a.jpg")
    save(tmp_path / "binary" / "whisk" / "a.png", grid(0))
    save(tmp_path / "binary" / "not one" / "a.png", grid(0))
    with pytest.raises(InputError, match="'not one'"):
        open_coca(tmp_path)


def cub_copy(root: Path, beside: bool) -> Path:
    folder = root / "CUB_200_2011"
    names = ["001.Black_footed_Albatross/Black_0001", "002.Laysan_Albatross/Laysan_0002"]
    for name in names:
        save_photo(folder / "images" / f"{name}.jpg")
        save((root if beside else folder) / "segmentations" / f"{name}.png", grid(0, 127, 128, 255))
    (folder / "images.txt").write_text("".join(f"{k} {n}.jpg\n" for k, n in enumerate(names, 1)))
    (folder / "train_test_split.txt").write_text("1 0\n2 1\n")
    return folder


@pytest.mark.parametrize("beside", [True, False])
def test_cub(tmp_path: Path, beside: bool) -> None:
    folder = cub_copy(tmp_path, beside)
    dataset = open_cub(folder)
    assert [s.id for s in dataset] == ["001.Black_footed_Albatross/Black_0001"]
    assert dataset.names == ("background", "bird") and first_row(dataset) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [s.id for s in open_cub(folder, "train")] == ["002.Laysan_Albatross/Laysan_0002"]


def test_cub_by_breed(tmp_path: Path) -> None:
    dataset = open_cub(cub_copy(tmp_path, True), ask="breed")
    assert dataset.samples[0].asked == ("background", "Black footed Albatross") and dataset.names == ("background", "bird")


def test_cub_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.txt, but it cannot be read"):
        open_cub(tmp_path)
    folder = cub_copy(tmp_path, True)
    (tmp_path / "segmentations").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="segmentations, and there is none"):
        open_cub(folder)
    (folder / "images.txt").write_text("1\n")
    with pytest.raises(InputError, match="a number and a value"):
        open_cub(folder)


def imagenet_copy(folder: Path, values: npt.NDArray[np.int64]) -> Path:
    for wnid in ("n02012849", "n01440764"):
        save_photo(folder / "validation" / wnid / f"{wnid}_1.JPEG", (values.shape[0], values.shape[1]))
        rgb = np.stack([values % 256, values // 256, np.zeros_like(values)], axis=-1).astype(np.uint8)
        save(folder / "validation-segmentation" / wnid / f"{wnid}_1.png", rgb)
    return folder


def test_imagenet_s(tmp_path: Path) -> None:
    folder = imagenet_copy(tmp_path / "ImageNetS919", np.array([[0, 1, 2, 1000]]))
    dataset = open_imagenet_s(folder, names={"n01440764": "tench", "n02012849": "crane bird", "n1": "unused"})
    assert dataset.names == ("background", "tench", "crane bird")
    assert [s.id for s in dataset] == ["n01440764/n01440764_1", "n02012849/n02012849_1"]
    assert dataset.read_truth(dataset.samples[0]).labels.tolist() == [[0, 1, 2, VOID]]
    assert open_imagenet_s(folder).names == ("background", "tench", "crane")


def test_labels_of_imagenet_s_beyond_a_byte(tmp_path: Path) -> None:
    folder = tmp_path / "ImageNetS919"
    imagenet_copy(folder, np.array([[0, 255, 256, 300]]))
    for k in range(298):
        (folder / "validation" / f"n{k:08d}").mkdir()
    names = {path.name: path.name for path in (folder / "validation").iterdir()}
    dataset = open_imagenet_s(folder, names=names)
    assert dataset.read_truth(dataset.samples[0]).labels.tolist() == [[0, 255, 256, 300]]


def test_words_of_wordnet_are_each_given_once(tmp_path: Path) -> None:
    folder = imagenet_copy(tmp_path / "ImageNetS919", np.array([[0]]))
    for wnid in ("n03126707", "n02113186", "n02963159"):  # the crane of a building site; the corgi and the garment cardigan
        (folder / "validation" / wnid).mkdir()
    names = ("background", "tench", "crane", "cardigan welsh corgi", "cardigan", "crane (n03126707)")
    assert open_imagenet_s(folder).names == names


def test_imagenet_s_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ImageNetS919/validation/WNID"):
        open_imagenet_s(tmp_path)
    folder = imagenet_copy(tmp_path, np.array([[0, 7]]))
    with pytest.raises(InputError, match="none for n02012849"):
        open_imagenet_s(folder, names={"n01440764": "tench"})
    dataset = open_imagenet_s(folder)
    with pytest.raises(InputError, match="labels from 0 to 2, or 1000"):
        dataset.read_truth(dataset.samples[0])
    save(folder / "validation-segmentation" / "n01440764" / "n01440764_1.png", grid(0))
    with pytest.raises(InputError, match="in colour"):
        dataset.read_truth(dataset.samples[0])
    (folder / "validation" / "dogs").mkdir()
    with pytest.raises(InputError, match="'dogs'"):
        open_imagenet_s(folder)


# folders of one's own


def own_folder(root: Path) -> tuple[Path, Path]:
    truth, images = root / "truth", root / "images"
    (truth / "deep").mkdir(parents=True)
    labels = np.array(grid(0, 1), np.int32)
    labels[0, 7] = VOID
    for name in ("a", "deep/b"):
        label_map = LabelMap(labels, ("background", "dog"), 0)
        write_label_map(truth / f"{name}.png", label_map)
        save_photo(images / f"{name}.jpg")
    ClassList.of(label_map).write(truth)
    return truth, images


def test_any_folder(tmp_path: Path) -> None:
    dataset = open_png_folder(*own_folder(tmp_path))
    assert dataset.names == ("background", "dog") and [s.id for s in dataset] == ["a", "deep/b"]
    assert first_row(dataset, 1) == [0, 1, 1, 1, 1, 1, 1, VOID]
    assert dataset.samples[1].read_image().size == SIZE
    assert open_png_folder(tmp_path / "truth").samples[0].image is None


def test_folders_that_are_no_truth(tmp_path: Path) -> None:
    truth, images = own_folder(tmp_path)
    (images / "a.jpg").unlink()
    with pytest.raises(InputError, match="1 have none, a among them"):
        open_png_folder(truth, images)
    for path in truth.rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="found no PNG"):
        open_png_folder(truth)
    (truth / "classes.json").unlink()
    with pytest.raises(InputError, match=r"classes\.json"):
        open_png_folder(truth)


def test_a_picture_is_found_whatever_its_kind(tmp_path: Path) -> None:
    truth, images = own_folder(tmp_path)
    (images / "a.jpg").unlink()
    save(images / "a.PNG", np.zeros((*SIZE, 3), np.uint8))
    assert open_png_folder(truth, images).samples[0].image == images / "a.PNG"


# the emoji world


def test_labels_of_a_scene() -> None:
    layout = np.array([[0, 1], [2, 3]], np.uint8)
    things = tuple(SceneObject(id_, "?", False) for id_ in (90, 1, 90))
    scene = Scene(np.zeros((2, 2, 3), np.uint8), layout, layout, things, "", "plain", "plain")
    labels = label_scene(scene)
    assert labels.labels.tolist() == [[0, 65], [1, 65]]
    assert labels.names == EMOJI_NAMES and labels.background == 0 and len(EMOJI_NAMES) == 66
    empty = Scene(scene.image, np.zeros((2, 2), np.uint8), layout, (), "", "empty", "plain")
    assert label_scene(empty).compute_shares() == {"background": 1.0}


def test_labels_of_the_written_scenes_are_their_masks() -> None:
    dataset = open_emoji_scenes(VALIDATION)
    truth = CocoFile.read(VALIDATION / "truth.json")
    assert dataset.names == EMOJI_NAMES and len(dataset) == len(truth.images) == 150
    name = {row["id"]: row["name"] for row in truth.categories}
    for sample, image in list(zip(dataset, truth.images, strict=True))[::15]:
        rows = [row for row in truth.annotations if row["image_id"] == image["id"]]
        labels = dataset.read_truth(sample).labels
        masks = [decode_rle(row["segmentation"]) for row in rows]
        assert np.sum(masks, axis=0).max() == 1, "overlaps"
        for row, mask in zip(rows, masks, strict=True):
            assert (labels[mask] == dataset.names.index(name[row["category_id"]])).all()
        assert (labels > 0).sum() == sum(int(mask.sum()) for mask in masks)
        assert sample.read_image().size == labels.shape


def test_truth_without_a_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [], "annotations": []})
    )
    with pytest.raises(InputError, match="height and width"):
        open_coco_instances(tmp_path / "t.json")
