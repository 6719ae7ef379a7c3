"""Many clients at once on a real server: each request has an answer, nothing that was said to be saved is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from tests.support.serving import OURS, StandIn, make_app, make_photos, make_workspace

from annofree.apps.web.options import Address
from annofree.apps.web.start import find_socket
from annofree.runs.corrections.journal import read_histories

CLIENTS, SECONDS = 50, 3.0


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    names = [f"{k:02}.jpg" for k in range(CLIENTS)]
    workspace = make_workspace(
        tmp_path / "out", make_photos(tmp_path / "photos", *names), now=StandIn(0.002), most=8, timeout=5
    )
    config = uvicorn.Config(make_app(workspace), log_level="error", access_log=False, lifespan="on", ws="none", http="h11")
    server = uvicorn.Server(config)
    with find_socket(Address(port=0)) as bound:
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def test_fifty_clients_are_answered_and_nothing_is_lost(address: str, tmp_path: Path) -> None:
    statuses, saved, problems = Counter[int](), dict[str, int](), list[str]()
    end = time.monotonic() + SECONDS

    def work(number: int) -> None:
        id_ = f"{number:02}.jpg"
        try:
            with httpx.Client(base_url=address, headers=OURS, timeout=20) as client:
                while time.monotonic() < end:
                    for path in (f"/api/images/{id_}/thumbnail", "/api/images?limit=20", f"/api/images/{id_}/answer"):
                        answer = client.get(path)
                        statuses[answer.status_code] += 1
                        if answer.status_code == 429:
                            assert answer.headers["retry-after"]
                    if answer.status_code != 200:
                        continue
                    acts = {"acts": [{"act": "reviewed"}], "revision": answer.json()["revision"]}
                    answer = client.post(f"/api/images/{id_}/acts", json=acts)
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        saved[id_] = answer.json()["revision"]
        except Exception as problem:  # told below, in the thread of the test
            problems.append(repr(problem))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == [] and set(statuses) <= {200, 429}
    assert statuses[200] > CLIENTS
    assert {id_: history.revision for id_, history in read_histories(tmp_path / "out").items()} == saved
