"""What people correct: acts, undoing, the journal on the disk, and labels that are made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.ops.rle import encode_rle
from annofree.runs.corrections.acts import History, Instance, Present, combine, name_instance, read_mask
from annofree.runs.corrections.journal import Journal, OutdatedError, find_journal, has_corrections, read_histories

SIZE = (6, 8)


def draw(name: str, rows: slice, columns: slice, score: float = 0.5, kept: bool = True) -> Instance:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    rle = encode_rle(mask)
    return Instance(name_instance(name, rle), name, rle, score, kept=kept, verdict="kept" if kept else "weak")


DOG = draw("dog", slice(0, 3), slice(0, 4), 0.9)
CAT = draw("cat", slice(3, 6), slice(4, 8), 0.6)
WEAK = draw("dog", slice(0, 6), slice(6, 8), 0.2, kept=False)
MACHINE = [DOG, CAT, WEAK]
MASK = {"size": [6, 8], "counts": [0, 2, 46]}


class Desk:
    """A person at one image."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)

    def act(self, *acts: dict[str, Any], machine: list[Instance] | None = None) -> None:
        history = self.journal.find("a.jpg")
        shown = combine(MACHINE if machine is None else machine, history.fold())
        self.journal.act("a.jpg", list(acts), shown, SIZE, history.revision, "ann")

    def step(self, way: str) -> None:
        self.journal.take_step("a.jpg", way, "ann")

    def show(self, machine: list[Instance] | None = None) -> dict[str, str]:
        present = self.journal.find("a.jpg").fold()
        return {one.id: f"{one.name} {one.state}" for one in combine(MACHINE if machine is None else machine, present)}

    @property
    def present(self) -> Present:
        return self.journal.find("a.jpg").fold()


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    made = Desk(tmp_path)
    yield made
    made.journal.close()


def test_each_act_does_what_it_says(desk: Desk) -> None:
    desk.act({"act": "accept", "instance": DOG.id})
    desk.act({"act": "rename", "instance": CAT.id, "class": " tabby  cat "})
    desk.act({"act": "reject", "instance": WEAK.id})
    assert desk.show() == {DOG.id: "dog accepted", CAT.id: "tabby cat accepted", WEAK.id: "dog rejected"}
    desk.act({"act": "add", "class": "bird", "mask": MASK})
    desk.act({"act": "replace", "instance": CAT.id, "mask": MASK})
    desk.act({"act": "delete", "instance": WEAK.id})
    assert desk.show() == {DOG.id: "dog accepted", CAT.id: "tabby cat accepted", "h4": "bird accepted"}
    cat, dog = desk.present.decided[CAT.id], desk.present.decided[DOG.id]
    assert (cat.source, cat.score, cat.box) == ("human", None, (0.0, 0.0, 1.0, 2.0))
    assert (dog.source, dog.score, dog.who) == ("machine", 0.9, "ann")
    assert dog.when is not None and dog.when.endswith("Z")


def test_acts_are_undone_and_done_again_in_groups(desk: Desk) -> None:
    desk.act({"act": "accept", "instance": DOG.id}, {"act": "reject", "instance": CAT.id})
    desk.act({"act": "add", "class": "bird", "mask": MASK})
    desk.step("undo")
    assert "h2" not in desk.show()
    desk.step("undo")
    assert desk.show() == {one.id: f"{one.name} open" for one in MACHINE}
    with pytest.raises(InputError, match="something to undo"):
        desk.step("undo")
    desk.step("redo")
    assert desk.show()[CAT.id] == "cat rejected"
    desk.act({"act": "delete", "instance": DOG.id})
    with pytest.raises(InputError, match="something to redo"):
        desk.step("redo")
    assert desk.journal.find("a.jpg").revision == 6


def test_an_image_that_was_reviewed_keeps_what_was_seen(desk: Desk) -> None:
    desk.act({"act": "reject", "instance": CAT.id})
    desk.act({"act": "reviewed"})
    assert desk.present.reviewed and desk.show() == {
        DOG.id: "dog accepted",
        CAT.id: "cat rejected",
        WEAK.id: "dog open",
    }
    horse = draw("horse", slice(0, 6), slice(0, 8), 0.8)
    shown = combine([horse], desk.present)
    assert [(one.name, one.labels) for one in shown] == [("horse", False), ("cat", False), ("dog", True)]
    desk.act({"act": "unreviewed"})
    assert not desk.present.reviewed and desk.show()[DOG.id] == "dog open"


def test_a_review_takes_what_was_seen_at_the_slider(desk: Desk) -> None:
    desk.act({"act": "reviewed", "score_floor": 0.7})
    assert [one.id for one in desk.present.decided.values()] == [DOG.id]
    desk.step("undo")
    desk.act({"act": "reviewed", "score_floor": 0.1})
    assert {one.id for one in desk.present.decided.values()} == {one.id for one in MACHINE}


def test_decisions_stay_when_the_machine_answers_a_little_otherwise(desk: Desk) -> None:
    desk.act({"act": "rename", "instance": DOG.id, "class": "wolf"}, {"act": "delete", "instance": CAT.id})
    near = draw("fox", slice(0, 3), slice(0, 4), 0.7)  # the same mask by another name
    again = draw("cat", slice(3, 6), slice(4, 8), 0.1)
    other = draw("dog", slice(3, 6), slice(0, 2), 0.3)
    shown = combine([near, again, other], desk.present)
    assert [(one.name, one.state) for one in shown] == [("dog", "open"), ("wolf", "accepted")]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ({"act": "explode"}, "unknown act"),
        ({"act": "accept", "instance": "m0"}, "an instance of this image"),
        ({"act": "accept"}, "an instance of this image"),
        ({"act": "rename", "instance": DOG.id, "class": ""}, "a class name"),
        ({"act": "rename", "instance": DOG.id, "class": "a, b"}, "a class name"),
        ({"act": "rename", "instance": DOG.id, "class": 7}, "a class name"),
        ({"act": "add", "class": "dog"}, "expected a mask"),
        ({"act": "add", "class": "dog", "mask": {"size": [6, 8], "counts": [48]}}, "some pixels"),
        ({"act": "add", "class": "dog", "mask": {"size": [6, 8], "counts": [47]}}, "run lengths"),
        ({"act": "add", "class": "dog", "mask": {"size": [6, 8], "counts": [-1, 49]}}, "expected a mask"),
        ({"act": "add", "class": "dog", "mask": {"size": [8, 6], "counts": [0, 48]}}, "of the size"),
        ({"act": "add", "class": "dog", "mask": {"size": [6, 8], "counts": "~~~"}}, "run lengths"),
        ({"act": "reviewed", "score_floor": 2}, "score_floor"),
    ],
)
def test_acts_that_cannot_be_are_refused_whole(desk: Desk, act: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        desk.act({"act": "accept", "instance": DOG.id}, act)
    assert desk.journal.revision == 0 and desk.present.decided == {}


def test_an_act_on_what_another_tab_changed_is_refused(desk: Desk) -> None:
    desk.act({"act": "accept", "instance": DOG.id})
    for revision in (0, 2, True, "1", None):
        with pytest.raises(OutdatedError, match="expected revision 1"):
            desk.journal.act("a.jpg", [{"act": "reviewed"}], MACHINE, SIZE, revision, "bob")
    with pytest.raises(OutdatedError):
        desk.journal.take_step("a.jpg", "undo", "bob", 0)


def test_a_journal_cut_anywhere_holds_all_whole_lines(desk: Desk, tmp_path: Path) -> None:
    desk.act({"act": "accept", "instance": DOG.id})
    desk.act({"act": "add", "class": "bird", "mask": MASK})
    desk.step("undo")
    desk.journal.close()
    whole = find_journal(tmp_path).read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == 10]
    other = tmp_path / "other"
    for end in range(0, len(whole) + 1, 7):
        find_journal(other).parent.mkdir(parents=True, exist_ok=True)
        find_journal(other).write_bytes(whole[:end])
        count = sum(e <= end for e in ends)
        assert read_histories(other).get("a.jpg", History()).revision == count
    find_journal(other).write_bytes(whole[: ends[1] - 5])  # killed in the middle of the second
    again = Desk(other)
    again.act({"act": "reject", "instance": CAT.id})
    again.journal.close()
    assert list(read_histories(other)["a.jpg"].fold().decided) == [DOG.id, CAT.id]
    assert len(find_journal(other).read_bytes().splitlines()) == 2


def test_a_journal_damaged_in_the_middle_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.act({"act": "accept", "instance": DOG.id})
    desk.act({"act": "reject", "instance": CAT.id})
    desk.journal.close()
    path = find_journal(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0].replace("accept", "reject") + lines[1])
    with pytest.raises(InputError, match="line 1 is damaged"):
        Journal(tmp_path)
    path.write_text(lines[1] + lines[1])
    with pytest.raises(InputError, match="revision 1"):
        read_histories(tmp_path)


def test_two_processes_do_not_both_write(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one server at a time"):
        Journal(tmp_path)
    assert read_histories(tmp_path) == {}  # reading needs no lock
    assert not has_corrections(tmp_path)


def test_a_line_says_who_and_when_and_the_machine_s_own_files_are_left_alone(desk: Desk, tmp_path: Path) -> None:
    desk.act({"act": "accept", "instance": DOG.id})
    (line,) = find_journal(tmp_path).read_text().splitlines()
    held = json.loads(line)
    assert (held["who"], held["image"], held["revision"]) == ("ann", "a.jpg", 1)
    assert held["acts"][0]["of"] == {"class": "dog", "counts": DOG.rle["counts"].decode(), "score": 0.9}
    assert {path.name for path in tmp_path.iterdir()} == {"corrections"}


def test_masks_are_read_plain_or_compressed() -> None:
    plain = read_mask({"size": [6, 8], "counts": [0, 2, 0, 2, 44]}, SIZE)
    assert read_mask({"size": [6, 8], "counts": plain["counts"].decode()}, SIZE) == plain
