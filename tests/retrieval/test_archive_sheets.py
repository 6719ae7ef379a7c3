from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.retrieval import archive_sheets
from annofree.retrieval.archive import Archive, Member
from annofree.retrieval.archive_sheets import write_sheets


def archive(folder: Path) -> Archive:
    for number in range(3):
        PIL.Image.new("RGB", (40, 30), (200, 60 * number, 0)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    members = {
        "dog": (Member("0.png", 0.5), Member("1.png", 0.25), Member("3.png", 0.125)),
        "hot/dog": (Member("1.png", 0.75),),
        "yeti": (Member("1.png", 0.1), Member("2.png", 0.05)),
    }
    return Archive(tuple(members), members, {f"{n}.png": str(folder / f"{n}.png") for n in range(4)})


def test_one_sheet_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, list[tuple[str | None, str]]]] = []

    def draw(title: str, thumbnails: list[Thumbnail]) -> PIL.Image.Image:
        drawn.append((title, [(t.image.id if t.image else None, t.caption) for t in thumbnails]))
        return draw_contact_sheet(title, thumbnails)

    monkeypatch.setattr(archive_sheets, "draw_contact_sheet", draw)
    failed = write_sheets(archive(tmp_path), tmp_path / "sheets")
    assert drawn == [
        (
            "dog: the best 3 of 3, cosine 0.500 to 0.125, 1 under other names too",
            [("0.png", "0.500"), ("1.png", "0.250, 2 more names"), (None, "0.125")],
        ),
        ("hot/dog: the best 1 of 1, cosine 0.750 to 0.750, 1 under other names too", [("1.png", "0.750, 2 more names")]),
        (
            "yeti: the best 2 of 2, cosine 0.100 to 0.050, 1 under other names too",
            [("1.png", "0.100, 2 more names"), ("2.png", "0.050")],
        ),
    ]
    assert list(failed) == ["3.png"]
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["000-dog.jpg", "001-hot-dog.jpg", "002-yeti.jpg"]
    with PIL.Image.open(tmp_path / "sheets" / "001-hot-dog.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert (np.abs(pixels - (200, 60, 0)).max(2) < 12).sum() > 0.7 * 160 * 120


def test_sheets_replace_those_of_before_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sheets").mkdir()
    for name in ("007-old.jpg", "mine.jpg"):
        (tmp_path / "sheets" / name).write_bytes(b"")
    write_sheets(archive(tmp_path), tmp_path / "sheets", best=1)
    names = sorted(p.name for p in (tmp_path / "sheets").iterdir())
    assert names == ["000-dog.jpg", "001-hot-dog.jpg", "002-yeti.jpg", "mine.jpg"]


def test_no_sheets_where_none_are_wanted(tmp_path: Path) -> None:
    assert write_sheets(archive(tmp_path), tmp_path / "sheets", best=0) == {}
    assert not (tmp_path / "sheets").exists()
    with pytest.raises(InputError, match="-1"):
        write_sheets(archive(tmp_path), tmp_path / "sheets", best=-1)
