"""The service: one queue with an end, images encoded once, prompts; and a run opened with its own answers and encodings."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.serving import OURS, PLAN, StandIn, make_photos, make_workspace, open_client

import annofree
from annofree.apps.web.options import Address, ServeOptions
from annofree.apps.web.service import Service
from annofree.apps.web.start import open_app
from annofree.apps.web.worker import BusyError, LateError, Worker
from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.runs.corrections.journal import has_corrections
from annofree.runs.tasks import Tasks

SCENES = Path(__file__).parents[3] / "examples" / "scenes"
NAMES = "orange, elephant"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    images = [SCENES / "oranges.jpg", SCENES / "elephants.jpg"]
    annofree.segment(images, NAMES, out=out, models="tiny", device="cpu", overlays=False, keep_encodings=True)
    return out


def occupy(worker: Worker, gate: threading.Event) -> None:
    """Keep a worker busy until the gate opens."""
    began = threading.Event()

    def wait() -> bool:
        began.set()
        return gate.wait(60)

    worker.offer(wait)
    began.wait(60)


def count_encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    encode = Tasks.encode

    def count(self: Tasks, images: Sequence[annofree.Image]) -> list[tuple[Any, ...]]:
        counted.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Tasks, "encode", count)
    return counted


@pytest.fixture
def held_worker() -> Iterator[tuple[Worker, threading.Event]]:
    """A worker that is busy until it is let go."""
    worker, gate = Worker(most=3, timeout=0.05), threading.Event()
    occupy(worker, gate)
    yield worker, gate
    gate.set()
    worker.close()


def test_more_questions_than_may_wait_are_sent_away(held_worker: tuple[Worker, threading.Event]) -> None:
    worker, gate = held_worker
    waiting = [worker.offer(lambda k=k: k) for k in range(3)]  # type: ignore[misc]
    with pytest.raises(BusyError, match="3 questions wait already"):
        worker.offer(lambda: 3)
    gate.set()
    assert [one.result(20) for one in waiting] == [0, 1, 2]
    assert worker.offer(lambda: 4).result(20) == 4


def test_nobody_waits_without_end_and_what_nobody_waits_for_is_not_done(held_worker: tuple[Worker, threading.Event]) -> None:
    worker, gate = held_worker
    done: list[int] = []
    with pytest.raises(LateError, match=r"within 0\.05 s"):
        worker.do(lambda: done.append(1))
    with pytest.raises(LateError):
        asyncio.run(worker.ask(lambda: done.append(2)))
    gate.set()
    assert worker.offer(lambda: 3).result(20) == 3
    assert done == []


def test_errors_of_a_job_reach_who_asked() -> None:
    worker = Worker()
    for ask in (worker.do, lambda job: asyncio.run(worker.ask(job))):
        with pytest.raises(TimeoutError, match="its own"):
            ask(lambda: (_ for _ in ()).throw(TimeoutError("its own")))
    worker.close()


def test_a_full_queue_is_429_and_a_late_answer_503(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "out", make_photos(tmp_path / "photos"), now=StandIn(0.0), most=1, timeout=1.0)
    gate = threading.Event()
    with open_client(workspace) as client:
        occupy(workspace.service.worker, gate)
        late = client.get("/api/images/a.jpg/answer")
        assert late.status_code == 503 and int(late.headers["retry-after"]) >= 1
        busy = client.get("/api/images/a.jpg/answer")
        assert busy.status_code == 429 and int(busy.headers["retry-after"]) >= 1
        assert "ask again" in busy.json()["error"]
        gate.set()
        while workspace.service.worker.waiting:
            time.sleep(0.01)
        assert client.get("/api/images/a.jpg/answer").status_code == 200


def test_an_image_is_encoded_once_for_all_names_and_answers_as_segment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = count_encodings(monkeypatch)
    image = annofree.read_image(SCENES / "oranges.jpg", "oranges.jpg")
    service = Service(PLAN, kept=tmp_path / "kept", timeout=600)
    found = service.answer(image, NAMES)
    (expected,) = annofree.segment(image, NAMES, models="tiny", device="cpu")
    counted.clear()
    assert found == expected.detections and len(found)
    ranked = service.rank(image, "banana, orange")
    assert 0 < int(ranked.kept.sum()) < len(ranked.reasons) and counted == []
    x0, y0, x1, y1 = found.boxes[0].tolist()
    drawn = service.segment(image, [[(x0 + x1) / 2, (y0 + y1) / 2, 1]], None)
    assert drawn.mask.shape == image.size and drawn.mask[int(drawn.box[1]) : int(drawn.box[3])].any()
    boxed = service.segment(image, [], [x0, y0, x1, y1])
    overlap = (boxed.mask & found.masks[0]).sum() / (boxed.mask | found.masks[0]).sum()
    assert overlap > 0.5
    wrong: list[tuple[list[Any], Any]] = [([], None), ([[-1, 0, 1]], None), ([[0, 0, 2]], None), ([], [5, 5, 5, 9])]
    for points, box in (*wrong, ([["x", 0, 1]], None)):
        with pytest.raises(InputError, match="expected"):
            service.segment(image, points, box)
    service.close()
    later = Service(PLAN, kept=tmp_path / "kept", timeout=600)  # the encoding is on the disk
    again = later.answer(image, NAMES)
    assert counted == [] and np.allclose(again.scores, found.scores, atol=0.02) and len(again) == len(found)
    later.close()


def test_a_run_shows_its_own_answers_and_answers_other_names_from_its_encodings(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    monkeypatch.setattr(Tasks, "encode", lambda *_: pytest.fail("it was encoded again"))
    app = open_app(run, ServeOptions(method={"device": "cpu"}, timeout=600), Address())
    with TestClient(app, base_url="http://127.0.0.1", headers=OURS) as client:
        told = client.get("/api/workspace").json()
        assert (told["kind"], told["images"], [c["name"] for c in told["classes"]]) == ("run", 2, ["orange", "elephant"])
        (stored,) = [found for name, found in annofree_run(run) if name == "oranges.jpg"]
        shown = client.get("/api/images/oranges.jpg/answer").json()
        assert [i["box"] for i in shown["instances"]] == stored.boxes.tolist()
        risks = [one["risk"] for one in client.get("/api/images?order=risk").json()["images"]]
        assert risks == sorted(risks, reverse=True)
        client.put("/api/classes", json={"classes": [{"name": "banana"}, {"name": "orange"}]})
        changed = client.get("/api/images/oranges.jpg/answer").json()
        assert {i["class"] for i in changed["instances"] if i["kept"]} == {"orange"} and len(changed["instances"]) > len(stored)
        one = changed["instances"][0]["id"]
        body: dict[str, Any] = {"acts": [{"act": "rename", "instance": one, "class": "ball"}], "revision": 0}
        assert client.post("/api/images/oranges.jpg/acts", json=body).status_code == 200
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before  # the run's own files
    assert has_corrections(run)


def test_a_run_made_anew_keeps_what_people_corrected_and_says_so(tmp_path: Path) -> None:
    photos, out, notes = make_photos(tmp_path / "photos", "a.jpg", size=(40, 40)), tmp_path / "run", list[str]()
    options: dict[str, Any] = {"models": "tiny", "device": "cpu", "overlays": False, "policy": "all"}
    annofree.segment(photos, "dog", out=out, **options)
    workspace = make_workspace(out, photos)
    with open_client(workspace) as client:
        client.get("/api/images/a.jpg/answer")
        client.post("/api/images/a.jpg/acts", json={"acts": [{"act": "reviewed"}], "revision": 0})
    kept = (out / "corrections/journal.jsonl").read_bytes()
    annofree.segment(photos, "cat", out=out, fresh=True, callbacks=Callbacks(on_note=notes.append), **options)
    assert (out / "corrections/journal.jsonl").read_bytes() == kept and any("people corrected" in note for note in notes)
    report = annofree.export(out, tmp_path / "coco", format="coco")
    assert report.pictures == 1 and '"who": "ann"' in (tmp_path / "coco/annotations.json").read_text()


def annofree_run(run: Path) -> Iterator[tuple[str, annofree.Detections]]:
    from annofree.runs.store.reader import StoredRun

    for image in StoredRun.read(run, images=run).read_images():
        yield image.file_name, image.found
