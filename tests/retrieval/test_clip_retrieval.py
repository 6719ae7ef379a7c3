import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annofree.errors import InputError, MissingError
from annofree.retrieval.open_index import open_index
from annofree.retrieval.search import find_repeated_rows, search


def write(folder: Path, blocks: dict[str, Any], dtype: Any = np.float16) -> Path:
    (folder / "img_emb").mkdir()
    for number, block in blocks.items():
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.asarray(block, dtype))
    return folder


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_without_metadata_ids_are_row_numbers(tmp_path: Path, dtype: Any) -> None:
    blocks = {"10": 2 * np.eye(3)[2:], "2": 0.5 * np.eye(3)[1:2], "0": np.eye(3)[:1], "9": np.zeros((0, 3))}
    index = open_index(write(tmp_path, blocks, dtype))
    assert len(index) == 3
    found = search(index, np.eye(3, dtype=np.float32), 1)
    assert [(r.rows.tolist(), r.scores.tolist()) for r in found] == [([0], [1.0]), ([1], [1.0]), ([2], [1.0])]
    assert index.read_ids(np.array([2, 0])) == ["2", "0"]
    assert (index.place("2"), index.model) == ("2", {})


def test_a_folder_without_embeddings_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {})
    with pytest.raises(InputError, match="img_emb_0"):
        open_index(tmp_path)
    np.save(tmp_path / "img_emb" / "img_emb_x.npy", np.eye(3))
    with pytest.raises(InputError, match="number"):
        open_index(tmp_path)


def test_metadata_need_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"0": np.eye(3)})
    (tmp_path / "metadata").mkdir()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingError, match=r"install annofree\[parquet\]"):
        open_index(tmp_path)


def test_ids_are_the_paths_of_the_metadata(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, {"0": np.eye(4)[:2], "1": np.eye(4)[2:]})
    (tmp_path / "metadata").mkdir()
    for number, paths in enumerate((["a.jpg", "b.jpg"], ["c.jpg", "a.jpg"])):
        table = pyarrow.table({"caption": ["", ""], "image_path": paths})
        parquet.write_table(table, tmp_path / "metadata" / f"metadata_{number}.parquet")
    index = open_index(tmp_path, root=Path("/photos"))
    assert index.read_ids(np.array([3, 0, 2])) == ["a.jpg", "a.jpg", "c.jpg"]
    assert index.place("c.jpg") == "/photos/c.jpg"
    assert find_repeated_rows(index).tolist() == [False, False, False, True]
    parquet.write_table(table.slice(0, 1), tmp_path / "metadata" / "metadata_1.parquet")
    with pytest.raises(InputError, match="expected 2 rows"):
        open_index(tmp_path)
    (tmp_path / "metadata" / "metadata_1.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_index(tmp_path)
