"""Where YOLO's images and labels are found, whatever data.yaml calls their folders."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.annotations import list_images
from annofree.formats.passed_over import PassedOver
from annofree.formats.registry import export, read


def lay_out(folder: Path, text: str, *images: str) -> Path:
    """A data set whose label files, one line each, stand where images is called labels."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(f"{text}\nnames: [dog]\n")
    for name in images:
        labels = folder / "labels".join(name.rsplit("images", 1))
        for place in (folder / name, labels):
            place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (16, 12)).save(folder / name)
        labels.with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return folder


SPLITS = ("train/images/a.jpg", "valid/images/a.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "train: train/images\nval: valid/images",
        "train: train\nval: valid",
        "path: .\ntrain: ../train/images\nval: ../valid/images",
        "path: ../elsewhere/set\ntrain: [train/images, valid/images]",
        "train: list.txt\nval: list.txt",
        "train: ./train/images/\nval: valid/../valid/images",
    ],
)
@pytest.mark.parametrize("root", [None, ".", "train/images"])
def test_images_of_two_splits_keep_their_labels_and_names(text: str, root: str | None, tmp_path: Path) -> None:
    lay_out(tmp_path, text, *SPLITS)
    (tmp_path / "list.txt").write_text("./train/images/a.jpg\nvalid\\images\\a.jpg\n\n")
    passed = PassedOver()
    images = list_images(read("yolo-det", tmp_path, None if root is None else tmp_path / root, passed))
    assert [len(image.things) for image in images] == [1, 1] and not passed.left_out
    assert len({image.file_name for image in images}) == 2
    if root == ".":
        assert [image.file_name for image in images] == list(SPLITS)
        file = read("yolo-det", tmp_path, tmp_path)
        report = export(file, "coco", tmp_path / "out", images="copy", image_root=tmp_path)
        assert sorted(report.pictures_renamed) == [] and (tmp_path / "out/images/valid/images/a.jpg").is_file()


def test_images_elsewhere_have_their_labels_in_the_data_set(tmp_path: Path) -> None:
    lay_out(tmp_path / "set", "train: images/train", "images/train/a.jpg", "images/train/b.jpg")
    (tmp_path / "set/images").rename(tmp_path / "photos")
    images = list_images(read("yolo-det", tmp_path / "set", tmp_path / "photos/train"))
    assert [(image.file_name, len(image.things)) for image in images] == [("a.jpg", 1), ("b.jpg", 1)]


def test_an_absent_label_file_is_no_empty_one(tmp_path: Path) -> None:
    lay_out(tmp_path, "train: images", "images/a.jpg", "images/b.jpg", "images/c.jpg")
    (tmp_path / "labels/a.txt").unlink()
    (tmp_path / "labels/b.txt").write_text("")
    (tmp_path / "images/c.heic").write_bytes(b"")
    passed = PassedOver()
    assert sum(len(image.things) for image in list_images(read("yolo-det", tmp_path, None, passed))) == 1
    assert passed.losses == ["1 files passed over when reading", "1 label files passed over when reading"]
    (tmp_path / "labels").rename(tmp_path / "label")
    with pytest.raises(InputError, match=r"label files for the 3 images .* there are none"):
        read("yolo-det", tmp_path)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "train: images\ntest: gone", "images/a.jpg")
    passed = PassedOver()
    read("yolo-det", tmp_path, None, passed)
    assert passed.losses == ["1 named folders passed over when reading"]
    lay_out(tmp_path, "train: images\nval: gone", "images/a.jpg")
    with pytest.raises(InputError, match="val: names gone, which is not there"):
        read("yolo-det", tmp_path)
    lay_out(tmp_path, "train: nowhere", "images/a.jpg")
    with pytest.raises(InputError, match=r"train: nowhere, and there are none.*--image-root"):
        read("yolo-det", tmp_path)


def test_poses_confidences_and_classes_as_floats(tmp_path: Path) -> None:
    lay_out(tmp_path, "train: images", "images/a.jpg")
    (tmp_path / "labels/a.txt").write_text("0.0 0.5 0.5 0.5 0.5 0.87\n0 0 0 0.5 0 0.5 0.5 0.25\n")
    boxed, drawn = list_images(read("yolo-det", tmp_path))[0].things
    assert (boxed.box, boxed.score, boxed.rle) == ((4, 3, 12, 9), 0.87, None)
    assert drawn.score == 0.25 and drawn.rle is not None
    lay_out(tmp_path, "train: images\nkpt_shape: [2, 3]", "images/a.jpg")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 1\n")
    passed = PassedOver()
    (pose,) = list_images(read("yolo-seg", tmp_path, None, passed))[0].things
    assert (pose.box, pose.rle) == ((4, 3, 12, 9), None) and passed.losses == ["1 sets of key points passed over when reading"]


def test_aliases_of_yaml_are_refused_before_they_grow(tmp_path: Path) -> None:
    levels = "\n".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12))
    (tmp_path / "data.yaml").write_text(f"a0: &a0 [dog]\n{levels}\nnames: *a11\ntrain: images\n")
    with pytest.raises(InputError, match=r"data\.yaml: expected YAML without aliases"):
        read("yolo-det", tmp_path)


def test_a_label_file_that_is_read_for_two_pictures_is_told(tmp_path: Path) -> None:
    lay_out(tmp_path, "train: images", "images/a.jpg", "images/a.png")
    passed = PassedOver()
    assert [len(image.things) for image in list_images(read("yolo-det", tmp_path, None, passed))] == [1, 1]
    assert [one.reason for one in passed.fixed] == ["read again, for a second image, a.png"] and not passed.left_out
