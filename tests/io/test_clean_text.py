"""Names on a terminal: no control character reaches it, and odd bytes come back."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.apps.cli.progress import show_progress
from annofree.apps.cli.results import print_failures, print_result
from annofree.formats.values import find_image
from annofree.io.images import read_image
from annofree.io.text import clean_text, decode_name, encode_name

ODD = "a\x1b[2J\x9b1m\x07\r\u202egpj.\udce9"


def test_what_cannot_be_seen_becomes_an_escape() -> None:
    assert clean_text(ODD) == "a\\x1b[2J\\x9b1m\\x07\\r\\u202egpj.\\udce9"
    assert clean_text("a\nb") == "a\\nb" and clean_text("a\nb", lines=True) == "a\nb"
    for fine in ("", "橙 🧑\u200d🚒", "日本\u3000語", "caf\u00e9", "עברית"):
        assert clean_text(fine) == fine


def test_all_that_commands_print_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    print_result({}, f"found {ODD}\nwritten", as_json=False)
    print_failures({ODD: f"no {ODD}"}, "again")
    with show_progress("images") as shown:
        shown.callbacks.on_note(ODD)
        shown.callbacks.on_failure(ODD, ODD)
    said = "".join(capsys.readouterr())
    assert said.count("\\x1b[2J") == 4
    assert not [sign for sign in said if unicodedata.category(sign) == "Cc" and sign != "\n"]


def test_odd_bytes_of_a_name_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 50%.png")
    assert encode_name(name) == "caf%E9 50%.png" and decode_name(encode_name(name)) == name
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("a file system of Unicode names")
    assert find_image(tmp_path, encode_name(name)) == tmp_path / name


@pytest.mark.parametrize(("there", "asked"), [("caf\u00e9.png", "cafe\u0301.png"), ("cafe\u0301.png", "caf\u00e9.png")])
def test_a_name_in_another_unicode_form_is_found(there: str, asked: str, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / there)
    assert read_image(tmp_path / asked).size == (2, 3)
