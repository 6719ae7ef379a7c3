"""``annofree.relabel`` with the bank of an archive: its images are looked at once, and a slow twin says what they stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.paper import write_scenes

import annofree
from annofree.clues.distractors import Distractors
from annofree.clues.regions import average_readings, pool_features
from annofree.detections.bank import Bank, BankSettings
from annofree.detections.mask_shapes import measure_shapes
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.io.image_sources import read_place
from annofree.methods.answering import Answering, AnsweringBoth
from annofree.methods.archive_bank import collect_archive_bank
from annofree.methods.build import MethodSpec
from annofree.methods.consensus import Consensus, ConsensusSettings
from annofree.methods.zip import Zip
from annofree.ops.rle import decode_rle, encode_rle
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close

POLICY = OutputPolicy(verify=True, overlaps=Overlaps(within=0.5, across=0.5))
MEMBERS = {
    "apple": ("0.png", "5.png"),
    "car": ("1.png", "0.png"),  # the second one is an apple
    "Tree": ("2.png", "7.png"),  # the second one is empty
    "banana": ("6.png", "3.png"),
    "boat": ("4.png",),
    "zebra": ("4.png",),  # is not asked for
}


def build(kind: str, policy: Any = "answer") -> Any:
    clip, sam = FakeClip(), FakeSam()
    own: Any = Zip(clip, sam) if kind == "zip" else Consensus(clip, sam, ConsensusSettings(points=24, largest=0.6))
    if policy == "all":
        return own
    return (Answering if kind == "zip" else AnsweringBoth)(own, POLICY, clip, Distractors(("background",)))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consensus, and Zip, on the fakes."""
    monkeypatch.setattr(MethodSpec, "build", lambda spec, _: build(spec.method, spec.policy))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "photos")


@pytest.fixture
def archive(tmp_path: Path, photos: Path) -> Path:
    return write_archive(tmp_path / "archive", photos)


def write_archive(folder: Path, photos: Path, tier: str = "S1", members: dict[str, Sequence[str]] | None = None) -> Path:
    """An archive of the paper world; each mask is of the first thing of its scene."""
    held = {name: tuple(Member(i, 0.5 - 0.1 * k) for k, i in enumerate(ids)) for name, ids in (members or MEMBERS).items()}
    about = {"model": {"name": "a-clip", "tier": "S1", "licence": "MIT"}}
    Archive(tuple(held), held, {f"{k}.png": str(photos / f"{k}.png") for k in range(8)}, about).write(folder)
    with MaskWriter(folder, {"model": {"name": "a-masker", "tier": tier, "licence": "MIT"}}) as writer:
        for k, scene in enumerate(draw_paper_scenes()):
            mask = scene.masks[0] if len(scene.masks) else np.zeros(scene.image.size, bool)
            writer.add(PseudoMask(f"{k}.png", encode_rle(mask), 0.9 - 0.05 * k))
    return folder


def keep(photos: Path, out: Path, **options: Any) -> Path:
    """A run of the folder that keeps its encodings."""
    asked = {"method": "consensus", "models": "tiny", "device": "cpu", "overlays": False, **options}
    annofree.segment(photos, NAMES, out=out, keep_encodings=True, **asked)
    return out


class Notes(list[str]):
    """What was noted, and which images were counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[tuple[int, int]] = []

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(on_note=self.append, on_progress=lambda done, total: self.counted.append((done, total)))


def collect(folder: Path, kind: str = "consensus", names: Any = NAMES, **settings: Any) -> tuple[Bank, Notes]:
    notes = Notes()
    banked = collect_archive_bank(
        build(kind), MaskedArchive.read(folder), Vocabulary.of(names), BankSettings(**settings), notes.callbacks
    )
    assert banked.bank is not None
    return banked.bank, notes


def find_rows_slowly(folder: Path, kind: str, per_name: int) -> Iterator[tuple[Any, ...]]:
    """Name, whether it is told, score, feature and shape of each row, one member after another."""
    held, clip = MaskedArchive.read(folder), FakeClip()
    words = clip.encode_text(Vocabulary.of([*NAMES, "background"]))
    scores: dict[tuple[str, str], float] = {}
    features: dict[str, torch.Tensor] = {}
    for name, ids in MEMBERS.items():
        for i in ids[:per_name] if name != "zebra" else ():
            image, mask = read_place(held.archive.places[i], i), decode_rle(held.masks[i].rle)[None]
            if not mask.any():
                continue
            tokens = clip.encode_dense([image])[0]
            own = average_readings(clip, image, tokens, mask, ("cut-out", "pooled")) if kind == "consensus" else None
            features[i] = (pool_features(tokens, mask) if own is None else own)[0].half().float()
            shares = (100 * features[i] @ words.T).softmax(0)
            scores[name.lower(), i] = float(shares[NAMES.index(name.lower())]) * held.masks[i].quality
    for (name, i), score in scores.items():
        told = score == max(other for (_, j), other in scores.items() if j == i)
        shape = measure_shapes([held.masks[i].rle])[0][0].tolist()
        yield name, told, score, torch.nn.functional.normalize(features[i], dim=0).tolist(), shape


@pytest.mark.parametrize("kind", ["consensus", "zip"])
@pytest.mark.parametrize("per_name", [1, 100])
def test_references_are_those_of_a_slow_twin(kind: str, per_name: int, archive: Path) -> None:
    bank, notes = collect(archive, kind, per_name=per_name)
    names = [bank.names[k] for k in bank.ids.tolist()]
    found = list(zip(names, bank.told.tolist(), bank.scores.tolist(), bank.features, bank.shapes, strict=True))
    expected = list(find_rows_slowly(archive, kind, per_name))
    assert len(found) == len(expected) == (5 if per_name == 1 else 8)
    order = sorted(expected, key=lambda row: (row[0], row[1], -row[2]))
    for mine, twin in zip(found, order, strict=True):
        assert mine[:2] == twin[:2] and mine[4].tolist() == twin[4]
        assert_close(mine[2], twin[2], dtype=torch.float32)
        assert_close(mine[3], torch.tensor(twin[3]), dtype=torch.float16)
    assert not bool(bank.told[[name == "car" for name in names].index(True)]) or per_name == 1, "an apple is no car"
    assert any("not asked for and were passed over: 1; zebra" in note for note in notes)
    assert per_name == 1 or any("without a mask that were passed over: 1; 7.png" in note for note in notes)


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every encoder of images fail."""

    def fail(*_: Any, **__: Any) -> Any:
        pytest.fail("an encoder ran")

    for name in ("encode_image", "encode_dense", "encode_squares"):
        monkeypatch.setattr(FakeClip, name, fail)


def assert_same_bank(one: Bank, other: Bank) -> None:
    parts = ("features", "ids", "scores", "told", "images", "shapes", "aspects")
    assert one.names == other.names and all(torch.equal(getattr(one, part), getattr(other, part)) for part in parts)


def test_what_was_seen_is_kept_and_taken_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, _ = collect(archive, names=["apple", "boat"])
    assert set(some.names) == {"apple", "boat"}
    first, notes = collect(archive)
    assert notes.counted[0] == (3, 7) and notes.counted[-1] == (7, 7), "three were looked at before"
    (kept,) = (archive / "looks").iterdir()
    with monkeypatch.context() as patch:
        forbid(patch)
        again, notes = collect(archive)
        assert_same_bank(first, again)
        assert notes.counted == [(7, 7)]
    kept.write_bytes(kept.read_bytes()[:-3] + b"abc")
    anew, notes = collect(archive)
    assert_same_bank(first, anew)
    assert notes.counted[0] == (0, 7), "a damaged file is no file"


def test_what_was_seen_of_another_archive_is_not_taken(archive: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(archive)
    collect(archive, "zip")
    assert len(list((archive / "looks").iterdir())) == 2, "another method sees otherwise"
    write_archive(archive.parent / "other", photos, members={"apple": ("0.png",)})
    (archive / "archive.json").write_bytes((archive.parent / "other" / "archive.json").read_bytes())
    _, notes = collect(archive)
    assert notes.counted[0] == (0, 1)
    lines = (archive / "masks.jsonl").read_bytes().splitlines(keepends=True)
    (archive / "masks.jsonl").write_bytes(b"".join(lines[:2]))
    _, notes = collect(archive)
    assert notes.counted[0] == (0, 1)


def test_images_that_cannot_be_read_are_counted(archive: Path, photos: Path) -> None:
    (photos / "5.png").write_bytes(b"no image")
    (photos / "6.png").write_bytes((photos / "2.png").read_bytes())
    bank, notes = collect(archive)
    assert len(bank.ids) == 6
    (note,) = (note for note in notes if "could not be looked at" in note)
    assert "looked at: 2; " in note and "5.png" in note and "6.png to be of 150x90 as its mask, got 168x104" in note
    write = archive / "looks"
    for path in write.iterdir():
        path.unlink()
    write.rmdir()
    write.write_text("in the way")
    again, notes = collect(archive)
    assert_same_bank(bank, again)
    assert any("cannot be kept" in note and "looks" in note for note in notes)


def test_relabel_takes_an_archive(fakes: None, archive: Path, photos: Path, tmp_path: Path) -> None:
    run, notes = keep(photos, tmp_path / "run", task="instance,semantic"), Notes()
    found = annofree.relabel(run, NAMES, out=tmp_path / "banked", bank=archive, callbacks=notes.callbacks)
    said = json.loads((found.out / "run.json").read_text())
    assert found.summary["instances"] > 0 and said["settings"]["bank"] == str(archive)
    held = said["provenance"]["bank"]
    assert held["references"] == {"apple": 2, "banana": 2, "boat": 1, "car": 1, "tree": 1}
    assert [(model["name"], model["tier"]) for model in held["archive"]["models"]] == [("a-clip", "S1"), ("a-masker", "S1")]
    assert annofree.relabel(run, NAMES, out=tmp_path / "banked", bank=archive).was_complete
    with (archive / "masks.jsonl").open("ab") as file:
        file.write(b"torn")
    with pytest.raises(InputError, match="archive"):
        annofree.relabel(run, NAMES, out=tmp_path / "banked", bank=archive)


def test_an_archive_brings_its_tier(fakes: None, photos: Path, tmp_path: Path) -> None:
    run, archive = keep(photos, tmp_path / "run", limit=2), write_archive(tmp_path / "archive", photos, tier="S2")
    with pytest.raises(InputError, match="tier S1 at most, but a-masker is S2"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=archive, max_tier="S1")
    annofree.relabel(run, NAMES, out=tmp_path / "plain", max_tier="S1")
    banked = annofree.relabel(run, NAMES, out=tmp_path / "banked", bank=archive, max_tier="S2")
    assert "supervision tier S2" in annofree.report(banked.out).read_text(encoding="utf-8")
    (archive / "masks-about.json").unlink()
    with pytest.raises(InputError, match="masks of archive is unknown"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=archive, max_tier="S2")
    with pytest.raises(InputError, match="tier"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", max_tier="S9")


def test_what_is_no_bank_is_refused(fakes: None, archive: Path, photos: Path, tmp_path: Path) -> None:
    run = keep(photos, tmp_path / "run", limit=1)
    with pytest.raises(InputError, match=r"of an archive with masks \(archive.json\), but .*photos has neither"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=photos)
    with pytest.raises(InputError, match=r"expected some of the names asked for in the archive .* but it has apple, car"):
        annofree.relabel(run, ["giraffe"], out=tmp_path / "x", bank=archive)
    every = keep(photos, tmp_path / "all", policy="all", limit=1)
    with pytest.raises(InputError, match="expected a run of --policy answer whose candidates CLIP names"):
        annofree.relabel(every, NAMES, out=tmp_path / "x", bank=archive)
    (archive / "masks.jsonl").unlink()
    with pytest.raises(InputError, match=f"make them with `annofree mask {archive}`"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=archive)
    assert not (tmp_path / "x").exists()
