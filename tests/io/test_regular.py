"""What never ends is no file: pipes, sockets and devices in the place of one are refused, and not waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annofree.errors import InputError
from annofree.experiments.recipe_file import read_fields
from annofree.formats.label_maps import ClassList, read_indices
from annofree.hub.cards import hash_file
from annofree.io.class_names import read_vocabulary
from annofree.io.coco_stream import stream_coco
from annofree.io.files.checksums import is_unchanged, measure_file
from annofree.io.read_json import read_own_json
from annofree.io.settings_file import read_toml
from annofree.io.text import read_text
from annofree.io.xml import read_xml, stream_xml
from annofree.retrieval.archive import read_masks
from annofree.runs.store.chunks import Chunks

READERS: list[Callable[[Path], Any]] = [
    read_text,
    lambda path: read_own_json(path, "parts", "make it again"),
    lambda path: list(stream_coco(path)),
    lambda path: read_xml(path, "a"),
    lambda path: list(stream_xml(path, "a")),
    lambda path: read_toml(path, "a recipe"),
    lambda path: read_vocabulary(None, path),
    lambda path: read_masks(path.parent),
    measure_file,
    read_fields,
    read_indices,
    hash_file,
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("way", ["pipe", "device"])
@pytest.mark.parametrize("read", READERS)
def test_it_is_refused(read: Callable[[Path], Any], way: str, tmp_path: Path) -> None:
    path = tmp_path / "masks.jsonl"
    os.mkfifo(path) if way == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises((InputError, OSError), match="a pipe, a socket or a device"):
        read(path)
    assert not is_unchanged(path, [0, 0])


@pytest.mark.parametrize(
    ("name", "read"), [("shards/manifest.jsonl", lambda out: Chunks(out).list_whole()), ("classes.json", ClassList.read)]
)
def test_own_files_that_never_end_are_refused(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a pipe, a socket or a device"):
        read(tmp_path)


def test_what_a_shell_hands_over_is_read() -> None:
    out, into = os.pipe()
    os.write(into, b"dog\n")
    os.close(into)
    assert read_text(Path(f"/dev/fd/{out}")) == "dog\n"
    os.close(out)
