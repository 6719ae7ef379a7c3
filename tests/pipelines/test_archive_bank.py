"""``annofree.relabel`` with the bank of an archive: its images are looked at once, and what they stand for is what a slow twin says."""

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
from annofree.methods.archive_bank import bank_archive
from annofree.methods.build import MethodSpec
from annofree.methods.consensus import Consensus, ConsensusSettings
from annofree.methods.zip import Zip
from annofree.ops.rle import decode_rle, encode_rle
from annofree.retrieval.archive import Archive, MaskWriter, Member, PseudoMask
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.structures import Image, Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import close

POLICY = OutputPolicy(verify=True, overlaps=Overlaps(within=0.5, across=0.5))
MEMBERS = {
    "apple": ("0.png", "5.png"),
    "car": ("1.png", "0.png"),  # the second one is an apple
    "Tree": ("2.png", "7.png"),  # the second one is empty
    "banana": ("6.png", "3.png"),
    "boat": ("4.png",),
    "zebra": ("4.png",),  # is not asked for
}


def build(kind: str) -> Any:
    clip, sam = FakeClip(), FakeSam()
    own: Any = Zip(clip, sam) if kind == "zip" else Consensus(clip, sam, ConsensusSettings(points=24, largest=0.6))
    return (Answering if kind == "zip" else AnsweringBoth)(own, POLICY, clip, Distractors(("background",)))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consensus, and Zip, on the fakes."""
    monkeypatch.setattr(MethodSpec, "build", lambda spec, _: build(spec.method))


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
    banked = bank_archive(
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
    bank, notes = collect(archive, kind, per_name=per_name, floor=0.05)
    names = [bank.names[k] for k in bank.ids.tolist()]
    found = list(zip(names, bank.told.tolist(), bank.scores.tolist(), bank.features, bank.shapes, strict=True))
    expected = list(find_rows_slowly(archive, kind, per_name))
    assert len(found) == len(expected) == (5 if per_name == 1 else 8)
    order = sorted(expected, key=lambda row: (row[0], row[1], -row[2]))
    for mine, twin in zip(found, order, strict=True):
        assert mine[:2] == twin[:2] and mine[4].tolist() == twin[4]
        assert close(mine[2], twin[2], "another order of sums") and close(mine[3], torch.tensor(twin[3]), "stored in half")
    assert not bool(bank.told[[name == "car" for name in names].index(True)]) or per_name == 1, "an apple is no car"
    assert any("1 names" in note and "zebra" in note for note in notes)
    assert per_name == 1 or any("1 images" in note and "no mask" in note and "7.png" in note for note in notes)
