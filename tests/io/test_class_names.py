"""Class names in a text, in a list, or in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from annofree.errors import InputError
from annofree.io.class_names import read_vocabulary
from annofree.structures import Vocabulary


def test_names_are_read_from_what_holds_them(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffdog\n\n# no name\n cat: kitten | tabby\r\n".encode())
    expected = Vocabulary.of("dog, cat: kitten | tabby")
    assert read_vocabulary("dog, cat: kitten | tabby") == expected
    assert read_vocabulary(["dog", "cat: kitten | tabby"]) == expected
    assert read_vocabulary(expected) is expected
    for file in (tmp_path / "names.txt", str(tmp_path / "names.txt")):
        assert read_vocabulary(None, file) == expected


def test_names_are_given_once(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected either --classes .* or --classes-file FILE, got neither"):
        read_vocabulary(None)
    for classes in ("dog", ["dog"], Vocabulary.of("dog")):
        with pytest.raises(InputError, match="got both"):
            read_vocabulary(classes, tmp_path / "names.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_vocabulary(None, tmp_path / "none.txt")
    with pytest.raises(InputError):
        read_vocabulary(" ")
    with pytest.raises(InputError):
        read_vocabulary([])
