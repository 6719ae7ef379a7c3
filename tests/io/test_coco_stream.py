"""COCO files read row by row."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annofree.errors import InputError
from annofree.io import coco_stream
from annofree.io.coco_stream import stream_coco

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ROWS = st.lists(
    st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.floats(allow_nan=False), st.none()), max_size=3), max_size=5
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, ROWS, TEXT, st.sampled_from([None, 1]), st.integers(1, 9))
def test_rows_are_those_of_the_file(
    tmp_path: Path, images: Any, annotations: Any, note: str, indent: int | None, chunk: int
) -> None:
    data = {"info": {"note": note, "list": [1, 2]}, "images": images, "n": 12, "annotations": annotations, "last": note}
    place = tmp_path / "a.json"
    place.write_text(json.dumps(data, indent=indent, ensure_ascii=False), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_stream, "_CHUNK", chunk)
        read = list(stream_coco(place))
    assert read == [("images", row) for row in images] + [("annotations", row) for row in annotations]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": [{"id": 1}', '{"images": [{"id": 1} {"id": 2}]}', '{"images" 1}'])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "a.json"
    place.write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        list(stream_coco(place))
    with pytest.raises(InputError, match="cannot be read"):
        list(stream_coco(tmp_path / "none.json"))
