"""Names that others give stay in their folder, and copies give nobody more rights."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.registry import export, read
from annofree.io.atomic import remove_temporaries, write_atomic
from annofree.io.files.paths import confine, confine_name, copy_file, explain_os_error
from annofree.io.files.scratch import open_scratch


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/hostname", "..", "a\0b"])
def test_names_that_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    for refuse in (confine, confine_name):
        with pytest.raises(InputError, match="expected"):
            refuse(tmp_path, name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "...", "a..b", " "])
def test_other_names_are_joined(tmp_path: Path, name: str) -> None:
    assert confine(tmp_path, name) == confine_name(tmp_path, name) == tmp_path / name


def test_links_are_followed_inside_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "inside").symlink_to(root / "sub")
    (root / "outside").symlink_to(tmp_path)
    (root / "round").symlink_to(root / "round")
    (tmp_path / "roots").mkdir()  # a name that begins as that of the root
    (root / "beside").symlink_to(tmp_path / "roots")
    assert confine(root, "inside/a.jpg") == root / "inside" / "a.jpg"
    assert confine(root, "round") == root / "round"
    for name in ("outside", "outside/a.jpg", "beside/a.jpg"):
        with pytest.raises(InputError, match="a link leads from"):
            confine(root, name)
        assert confine_name(root, name) == root / name


def test_a_copy_has_no_more_rights_than_its_source(tmp_path: Path) -> None:
    secret, target = tmp_path / "a", tmp_path / "sub" / "b"
    secret.write_text("secret")
    secret.chmod(0o600)
    copy_file(secret, target)
    assert target.read_text() == "secret" and target.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "c", lambda path: path.write_text("c"))
    finally:
        os.umask(before)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600


def coco(folder: Path, name: str) -> Path:
    place, box = folder / "coco.json", {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "iscrowd": 0}
    images = [{"id": 1, "file_name": name, "height": 10, "width": 12}]
    place.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": [box]}))
    return place


@pytest.mark.parametrize("how", ["copy", "link"])
@pytest.mark.parametrize("name", ["../secret.jpg", "leads/secret.jpg", "link.jpg"])
def test_images_outside_of_their_folder_are_not_exported(tmp_path: Path, name: str, how: str) -> None:
    (tmp_path / "secret.jpg").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "leads").symlink_to(tmp_path)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="expected a file inside"):
        export(read("coco", coco(tmp_path, name)), "yolo-det", tmp_path / "out", images=how, image_root=root)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".export-*"))


def test_a_private_image_stays_private_when_it_is_copied(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    PIL.Image.new("RGB", (12, 10)).save(root / "a.jpg")
    (root / "a.jpg").chmod(0o600)
    export(read("coco", coco(tmp_path, "a.jpg")), "coco", tmp_path / "out", images="copy", image_root=root)
    assert (tmp_path / "out" / "images" / "a.jpg").stat().st_mode & 0o077 == 0


def test_what_a_kill_left_is_removed_by_the_next_call_and_what_is_at_work_is_not(tmp_path: Path) -> None:
    out = tmp_path / "o[u]t"
    left = tmp_path / ".export-o[u]t-abcd1234"
    (left / "new").mkdir(parents=True)
    (left / "lock").touch()
    mine = tmp_path / ".export-o[u]t-notes"
    mine.mkdir()
    (tmp_path / ".export-o[u]t-abcd5678").mkdir()  # killed before it had its lock, or when it had none any more
    own = tmp_path / ".export-o[u]t-pictures"
    (own / "new").mkdir(parents=True)
    (own / "a.jpg").touch()
    with open_scratch(out, "export") as first:
        assert not left.exists() and mine.exists()
        with open_scratch(out, "export") as second:
            assert first.exists() and second.exists() and first != second
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, own.name}


def test_what_a_kill_left_is_removed_when_the_export_was_done_before_it(tmp_path: Path) -> None:
    file = read("coco", coco(tmp_path, "a.jpg"))
    export(file, "coco", tmp_path / "out")
    left = tmp_path / ".export-out-abcd1234"
    left.mkdir()
    (left / "lock").touch()
    with pytest.raises(InputError, match="has something in it"):
        export(file, "coco", tmp_path / "out")
    assert not left.exists()


def test_temporary_files_of_a_training_are_removed_and_no_others(tmp_path: Path) -> None:
    for name in (
        ".checkpoint-0123abcd.pt",
        ".card-0123abcd.json",
        ".mine-0123abcd.pt",
        ".checkpoint-notes.pt",
    ):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, ("checkpoint", "card"))
    assert {path.name for path in tmp_path.iterdir()} == {".mine-0123abcd.pt", ".checkpoint-notes.pt"}


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "make room"), (errno.EROFS, "another --out"), (errno.EIO, "check it")]
)
def test_errors_of_the_system_are_one_line_with_the_file_and_a_remedy(code: int, remedy: str) -> None:
    line = explain_os_error(OSError(code, os.strerror(code), "a\nb"))
    assert "a\\nb" in line and os.strerror(code) in line and remedy in line and "\n" not in line


def test_a_full_disk_names_the_file_that_was_on_its_way(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as found:
        write_atomic(tmp_path / "run.json", fill)
    assert found.value.filename == str(tmp_path / "run.json") and not list(tmp_path.iterdir())
