"""Ray itself, started once: workers and drivers that are killed, and all that runs there, against what is done here.

One test, as Ray takes seconds to start and each worker imports torch.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import annofree
from annofree.io.callbacks import Callbacks
from annofree.runs.engines.ray_pool import Cluster, RayPool

SCENES = Path(__file__).parents[2] / "examples" / "scenes"


def finals(out: Path) -> dict[str, bytes]:
    """The files of a run or an index, without what tells of its calls."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {k: v.read_bytes() for k, v in files.items() if not k.startswith("shards/") and k not in ("run.json", "lock")}


def test_nothing_is_lost_on_ray(ray_kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    local = ray_kills.draw_and_run(tmp_path, 43)
    with RayPool[Any](Cluster(None, 2), "cpu", lambda job, piece: job):
        import ray

        kill_a_worker_and_the_driver(ray_kills, local, tmp_path, ray.get_runtime_context().gcs_address)
        segment_there_and_here(tmp_path)
        index_there_and_here(tmp_path)
    assert not ray.is_initialized()


def kill_a_worker_and_the_driver(ray_kills: ModuleType, local: dict[str, str], tmp_path: Path, address: str) -> None:
    """One after the other, in one run; it is gone on with here."""
    out, notes = tmp_path / "killed", list[str]()
    driver = ray_kills.begin_driver(tmp_path / "pictures", out, address, 0.05)
    assert ray_kills.wait_for(driver, 9) == 9
    os.kill(ray_kills.list_workers()[0], signal.SIGKILL)
    assert ray_kills.wait_for(driver, 30) == 30
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    driver.stdout.close()
    run = ray_kills.run_on_ray(tmp_path / "pictures", out, None, 0.0, Callbacks(on_note=notes.append), 1)
    assert any(note.startswith("going on: ") for note in notes)
    assert ray_kills.digest(out) == local
    assert run["timings"]["images"] == 42
    assert [one["variables"]["OMP_NUM_THREADS"] for one in run["environments"]] == [str(torch.get_num_threads())]


def segment_there_and_here(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"models": "tiny", "method": "sam_clip", "device": "cpu", "limit": 3, "batch_size": 2}
    here = annofree.segment(str(SCENES), "orange, banana", out=tmp_path / "here", **asked)
    there = annofree.segment(str(SCENES), "orange, banana", out=tmp_path / "there", engine="ray", workers=1, **asked)
    assert there.summary["settings"]["engine"] == "ray"
    assert there.summary["provenance"] == here.summary["provenance"]
    assert finals(tmp_path / "there") == finals(tmp_path / "here")


def index_there_and_here(tmp_path: Path) -> None:
    done = list[int]()
    asked: dict[str, Any] = {"models": "tiny", "device": "cpu", "batch": 2, "shard": 5}
    annofree.build_index(SCENES, tmp_path / "index", **asked)
    told = Callbacks(on_progress=lambda count, total: done.append(count))
    annofree.build_index(SCENES, tmp_path / "index there", engine="ray", workers=1, callbacks=told, **asked)
    assert finals(tmp_path / "index there") == finals(tmp_path / "index")
    assert done[0] == 0 and done[-1] == len(list(SCENES.glob("*.jpg")))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"engine": "dask"}, "unknown engine 'dask'"),
        ({"workers": 2}, "--workers with --engine ray only"),
        ({"engine": "ray"}, "expected an output folder for engine"),
        ({"engine": "ray", "workers": 0}, "expected workers of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(annofree.InputError, match=match):
        annofree.segment(str(SCENES), "orange", models="tiny", device="cpu", **options)
