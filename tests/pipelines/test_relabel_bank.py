"""``annofree.relabel`` with a bank of the folder: two passes over what was kept, and no image is looked at again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.paper import write_scenes

import annofree
from annofree.clues.distractors import Distractors
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.methods.answering import Answering, AnsweringBoth
from annofree.methods.build import MethodSpec
from annofree.methods.consensus import Consensus, ConsensusSettings
from annofree.methods.zip import Zip
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES

POLICY = OutputPolicy(verify=True, overlaps=Overlaps(within=0.5, across=0.5))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consensus, and Zip, on the fakes."""

    def build(spec: MethodSpec, _: Any) -> Any:
        clip, sam = FakeClip(), FakeSam()
        own = ConsensusSettings(points=24, largest=0.6)
        method: Any = Zip(clip, sam) if spec.method == "zip" else Consensus(clip, sam, own)
        kind = Answering if spec.method == "zip" else AnsweringBoth
        return method if spec.policy == "all" else kind(method, POLICY, clip, Distractors(("background",)))

    monkeypatch.setattr(MethodSpec, "build", build)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "photos")


def keep(photos: Path, out: Path, **options: Any) -> Path:
    """A run of the folder that keeps its encodings."""
    asked = {"method": "consensus", "models": "tiny", "device": "cpu", "overlays": False, **options}
    annofree.segment(photos, NAMES, out=out, keep_encodings=True, **asked)
    return out


def read_results(out: Path) -> dict[str, bytes]:
    """The results of a run by their names; all but run.json, which tells times."""
    files = (path for path in out.rglob("*") if path.is_file() and "shards" not in path.parts and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every encoder of images fail."""

    def fail(*_: Any, **__: Any) -> Any:
        pytest.fail("an encoder ran")

    for name in ("encode_image", "encode_dense", "encode_raw", "encode_boundaries", "encode_squares"):
        monkeypatch.setattr(FakeClip, name, fail, raising=False)
    for name in ("embed", "predict_masks"):
        monkeypatch.setattr(FakeSam, name, fail)


def test_no_encoder_runs_and_the_results_are_the_same_each_time(
    fakes: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = keep(photos, tmp_path / "run", task="instance,semantic")
    forbid(monkeypatch)
    first = annofree.relabel(run, NAMES, out=tmp_path / "first", bank=True)
    annofree.relabel(run, NAMES, out=tmp_path / "second", bank=True)
    assert first.summary["instances"] > 0
    assert read_results(tmp_path / "first") == read_results(tmp_path / "second")
    said = json.loads((tmp_path / "first" / "run.json").read_text())
    assert said["settings"]["bank"] == str(run) and sum(said["provenance"]["bank"]["references"].values()) > 5
    assert annofree.relabel(run, NAMES, out=tmp_path / "first", bank=True).was_complete
    with pytest.raises(InputError, match="bank"):
        annofree.relabel(run, NAMES, out=tmp_path / "first")


def test_a_stop_changes_nothing(fakes: None, photos: Path, tmp_path: Path) -> None:
    for k, path in enumerate([path for path in sorted(photos.iterdir()) for _ in range(10)]):
        (photos / f"again-{k}.png").write_bytes(path.read_bytes())
    run = keep(photos, tmp_path / "run")
    annofree.relabel(run, NAMES, out=tmp_path / "whole", bank=True)

    def stop(done: int, total: int) -> None:
        if done >= 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annofree.relabel(run, NAMES, out=tmp_path / "again", bank=True, callbacks=Callbacks(on_progress=stop))
    annofree.relabel(run, NAMES, out=tmp_path / "again", bank=True)
    assert read_results(tmp_path / "whole") == read_results(tmp_path / "again")


def test_another_run_may_be_the_bank(fakes: None, photos: Path, tmp_path: Path) -> None:
    run, few = keep(photos, tmp_path / "run"), keep(photos, tmp_path / "few", limit=3)
    own = annofree.relabel(few, NAMES, out=tmp_path / "own", bank=True)
    other = annofree.relabel(few, NAMES, out=tmp_path / "other", bank=run)
    said = [json.loads((made.out / "run.json").read_text())["provenance"]["bank"]["references"] for made in (own, other)]
    assert sum(said[0].values()) < sum(said[1].values())


@pytest.mark.parametrize("method", ["zip", "consensus"])
def test_a_bank_is_of_every_method_whose_candidates_clip_names(method: str, fakes: None, photos: Path, tmp_path: Path) -> None:
    run = keep(photos, tmp_path / "run", method=method)
    plain = annofree.relabel(run, NAMES, out=tmp_path / "plain")
    banked = annofree.relabel(run, NAMES, out=tmp_path / "banked", bank=True)
    found = [json.loads((made.out / "annotations.json").read_text())["annotations"] for made in (plain, banked)]
    key: Callable[[Any], Any] = lambda row: (row["image_id"], row["category_id"], str(row["segmentation"]))  # noqa: E731
    assert {key(row) for row in found[1]} <= {key(row) for row in found[0]}, "colors leave nothing to doubt"
    assert len(found[1]) > 5


def test_what_no_bank_can_be_of_is_refused(fakes: None, photos: Path, tmp_path: Path) -> None:
    every = keep(photos, tmp_path / "all", policy="all")
    with pytest.raises(InputError, match="expected a run of --policy answer whose candidates CLIP names"):
        annofree.relabel(every, NAMES, out=tmp_path / "x", bank=True)
    run = keep(photos, tmp_path / "run")
    with pytest.raises(InputError, match="nowhere is no folder"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=tmp_path / "nowhere")
    bare = tmp_path / "bare"
    annofree.segment(photos, NAMES, out=bare, method="consensus", models="tiny", device="cpu", overlays=False)
    with pytest.raises(InputError, match="kept no encodings"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=bare)
    with pytest.raises(InputError, match="are others: they were made by"):
        annofree.relabel(run, NAMES, out=tmp_path / "x", bank=keep(photos, tmp_path / "zip", method="zip"))
    assert not (tmp_path / "x").exists()
