"""A run owns its folder, and nothing else: what is named stays inside, and what others wrote stays as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.methods.registry import TASKS
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig
from annofree.runs.inputs import find_source
from annofree.runs.merge_shards import merge_runs
from annofree.runs.run import Run
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.clearing import clear_run
from annofree.runs.store.summary import read_about
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary


class World:
    """Runs over four small images of a folder of their own."""

    def __init__(self, kills: Any, folder: Path) -> None:
        self.photos, self.out, self.method, self.digest = folder / "photos", folder / "out", kills.Colours(), kills.digest
        self.notes: list[str] = []
        kills.draw_pictures(self.photos, 4)

    def go(self, out: Path | None = None, **how: Any) -> bool:
        """Give the command of the run; tells whether it was complete before."""
        source, tasks = find_source([self.photos], out), Tasks(TASKS, self.method, self.method, ("blue",))
        ids, words = list(source.list_ids()), Vocabulary.of("red, green, blue")
        rest: dict[str, Any] = {"wanted": TASKS, "stuff": ("blue",), "stretch": 2, "keep": True}
        request = RunConfig(out or self.out, ids, source.root, words, {"method": "colours"}, **rest)
        run = Run(request, Callbacks(on_note=self.notes.append))
        if not how.get("fresh") and run.check():
            return True
        run.execute(tasks, BatchEncoder(tasks, 2, 2), {"settings": {}}, **how)
        return False

    def edit(self, change: Callable[[list[Any]], None], shard: str = "00000.jsonl") -> None:
        """Change the rows of a shard, and let its line say that it was always so."""
        path, manifest = self.out / "shards" / shard, self.out / "shards" / "manifest.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [json.loads(line) for line in manifest.read_text().splitlines()]
        for line in lines:
            if line.get("file") == shard:
                line["bytes"] = path.stat().st_size
                line.pop("crc")
            line.pop("checksum", None)
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def world(kills: Any, tmp_path: Path) -> World:
    return World(kills, tmp_path)


@pytest.mark.parametrize(
    "place", ["../secret.txt", "overlays/../../secret.txt", "/etc/hostname", "run.json", "shards/settings.json"]
)
def test_files_outside_of_a_run_are_not_joined(world: World, place: str) -> None:
    world.go()
    (world.out.parent / "secret.txt").write_text("secret")

    def change(rows: list[Any]) -> None:
        rows[0]["image"]["overlay"] = place
        rows[0].pop("files", None)

    world.edit(change)
    with pytest.raises(InputError, match="expected a file"):
        merge_runs([world.out], world.out.parent / "a" / "joined")
    assert not (world.out.parent / "a" / "joined").exists()


def test_links_out_of_a_run_are_not_followed(world: World, tmp_path: Path) -> None:
    world.go()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    drawn = next((world.out / "overlays").rglob("*.jpg"))
    drawn.unlink()
    drawn.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match=r"a link leads from|gone or damaged"):
        merge_runs([world.out], tmp_path / "joined")


@pytest.mark.parametrize("name", ["shards", "overlays", "labels"])
def test_folders_that_lead_elsewhere_are_not_written_to(world: World, tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "00000.jsonl").write_text("theirs")
    world.out.mkdir()
    (world.out / name).symlink_to(theirs)
    with pytest.raises(InputError, match=r"a link leads from|which no run there wrote"):
        world.go(fresh=True)
    assert [path.name for path in theirs.iterdir()] == ["00000.jsonl"]


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_kept(world: World, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    (world.out / "shards").mkdir(parents=True)
    (world.out / "shards" / "lock").symlink_to(tmp_path / "diary.txt")
    with pytest.raises(InputError, match="it is a link; remove the link"):
        world.go()
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


@pytest.mark.parametrize("place", ["annotations.json", "labels/a.txt", "overlays/mine.jpg", "run.json"])
@pytest.mark.parametrize("fresh", [False, True])
def test_what_others_wrote_is_refused_before_a_byte_changes(world: World, place: str, fresh: bool) -> None:
    (world.out / place).parent.mkdir(parents=True)
    (world.out / place).write_text("theirs")
    with pytest.raises(InputError, match=f"has {place.split('/')[0]}, which no run there wrote; choose another --out"):
        world.go(fresh=fresh)
    assert [p for p in world.out.rglob("*") if p.is_file() and "shards" not in p.parts] == [world.out / place]


def test_fresh_removes_what_the_run_wrote_and_nothing_else(world: World) -> None:
    world.go()
    for place in ("notes.txt", "overlays/notes.txt", "labels/notes.txt", "shards/notes.txt", "report/index.html"):
        (world.out / place).parent.mkdir(exist_ok=True)
        (world.out / place).write_text("mine")
    clear_run(world.out)
    left = {p.relative_to(world.out).as_posix() for p in world.out.rglob("*") if p.is_file()}
    assert left - {"shards/lock"} == {
        "notes.txt",
        "overlays/notes.txt",
        "labels/notes.txt",
        "shards/notes.txt",
        "report/index.html",
    }


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_fresh_that_is_killed_leaves_no_run_that_seems_complete(
    world: World, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.go()
    expected, count, unlink = world.digest(world.out), [0], Path.unlink

    def stop(self: Path, missing_ok: bool = False) -> None:
        count[0] += 1
        if count[0] > after:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", stop)
        clear_run(world.out)
        raise KeyboardInterrupt
    assert not world.go()
    assert world.digest(world.out) == expected and not (world.out / "shards" / "cleared.json").exists()
    assert world.go()


def test_merging_into_one_of_the_runs_or_into_other_results_is_refused(world: World, tmp_path: Path) -> None:
    world.go()
    before = world.digest(world.out)
    with pytest.raises(InputError, match="which is one of the runs"):
        merge_runs([world.out], world.out)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "annotations.json").write_text("{}")
    with pytest.raises(InputError, match=r"has annotations\.json, which no run there wrote"):
        merge_runs([world.out], tmp_path / "theirs")
    assert world.digest(world.out) == before
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["annotations.json"]


def files_of(out: Path) -> list[str]:
    return sorted(
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.name not in ("lock", "manifest.jsonl")
    )


def test_any_file_with_a_flipped_byte_is_made_again(world: World) -> None:
    world.go()
    expected = world.digest(world.out)
    for name in files_of(world.out):
        path = world.out / name
        if not path.exists():
            continue  # a shard that was done again has another name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        try:
            assert not world.go(), f"{name} was taken as it is"
        except InputError as problem:
            assert name.startswith("shards/"), problem
            assert "shards" in str(problem) or "asked for something else" in str(problem), problem
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            world.go()
        assert world.digest(world.out) == expected, name


def test_files_that_are_gone_are_made_again(world: World) -> None:
    world.go()
    expected = world.digest(world.out)
    for name in expected:
        (world.out / name).unlink()
        assert not world.go(), name
        assert world.digest(world.out) == expected, name
        assert world.go()


def test_a_changed_image_is_noticed_and_named(world: World) -> None:
    world.go()
    image = sorted(path for path in world.photos.rglob("*") if path.is_file())[0]
    times = image.stat()
    with PIL.Image.open(image) as opened:
        other = np.asarray(opened.convert("RGB"))[::-1].copy()
    PIL.Image.fromarray(other).save(image, "PNG")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not world.go()
    assert any("1 images changed since they were looked at" in note and image.name in note for note in world.notes)
    assert world.go()


def test_an_image_that_was_touched_alone_is_the_same(world: World) -> None:
    world.go()
    for image in world.photos.iterdir():
        image.touch()
    assert world.go()


def test_runs_of_earlier_versions_go_on(world: World) -> None:
    world.go()
    shards = world.out / "shards"
    for path in shards.glob("0*.jsonl"):

        def change(rows: list[Any]) -> None:
            for row in rows:
                row.pop("files", None)
                row.pop("input", None)

        world.edit(change, path.name)
    lines = [json.loads(line) for line in (shards / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("files", None)
        line.pop("checksum", None)
    (shards / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert world.go()
    (world.out / "annotations.json").unlink()
    assert not world.go() and world.go()


DAMAGE: dict[str, tuple[str, str]] = {
    "settings": ("settings.json", "[]"),
    "settings without what was asked": ("settings.json", '{"format": 1}'),
    "settings of no classes": ("settings.json", '{"format": 1, "asked": {"classes": 3}}'),
    "nested": ("settings.json", "[" * 100_000),
    "inputs": ("inputs.txt", '{"a"'),
    "inputs that are no texts": ("inputs.txt", "3\n"),
    "manifest": ("manifest.jsonl", "nonsense\n"),
    "a line that is no object": ("manifest.jsonl", "3\n"),
    "a line without a file": ("manifest.jsonl", '{"number": 0}\n'),
    "a shard elsewhere": ("manifest.jsonl", '{"number": 0, "file": "../../a.jsonl", "inputs": 1, "bytes": 3}\n'),
    "a negative number": ("manifest.jsonl", '{"number": 0, "file": "00000.jsonl", "inputs": -1, "bytes": 3}\n'),
    "no unicode": ("settings.json", "\ufffd\ud800"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_state_is_one_line_that_names_the_file(world: World, case: str) -> None:
    world.go()
    name, text = DAMAGE[case]
    (world.out / "shards" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=name) as found:
        world.go()
    assert len(str(found.value).splitlines()) == 1 and ("--fresh" in str(found.value) or "--out" in str(found.value))
    with pytest.raises(InputError, match=r"shards|run"):
        merge_runs([world.out], world.out.parent / "joined")


def test_a_state_of_another_format_is_refused(world: World) -> None:
    world.go()
    path = world.out / "shards" / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(InputError, match=r"expected the state of a run of format 1 .*, got 99"):
        world.go()
    with pytest.raises(InputError, match="got 99"):
        merge_runs([world.out], world.out.parent / "joined")


def test_a_damaged_summary_is_written_again(world: World) -> None:
    world.go()
    (world.out / "run.json").write_text("{")
    assert not world.go() and read_about(world.out)["instances"] >= 0


def test_damaged_rows_are_done_again(world: World) -> None:
    world.go()
    expected = world.digest(world.out)
    for content in (b"[1]\n", b'{"n": 0}\n', b"\xff\xfe\n"):
        shard = Chunks(world.out).list_whole()[0].file
        (world.out / "shards" / shard).write_bytes(content)
        assert not world.go()
        assert world.digest(world.out) == expected
