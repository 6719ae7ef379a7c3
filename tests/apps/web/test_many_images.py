"""Runs of many images: rows are read once, when the page is opened, and then one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.support.many_rows import make_run

from annofree.apps.web.options import Address, ServeOptions
from annofree.apps.web.start import open_app
from annofree.runs.store.checks import check_row

COUNT = 1000


def test_a_page_of_the_list_reads_no_row_and_an_answer_reads_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", COUNT, tmp_path)
    read: list[str] = []

    def check(row: Any) -> dict[str, Any]:
        read.append(row["id"])
        return check_row(row)

    monkeypatch.setattr("annofree.apps.web.run_answers.check_row", check)
    app = open_app(run, ServeOptions(), Address())
    assert len(read) == COUNT
    with TestClient(app, base_url="http://127.0.0.1") as client:
        pages = [client.get(f"/api/images?limit=100&offset={k}").json() for k in range(0, COUNT, 100)]
        assert [one["id"] for page in pages for one in page["images"]] == read[:COUNT]
        risky = client.get("/api/images?order=risk&limit=500").json()["images"]
        assert [one["risk"] for one in risky] == sorted((one["risk"] for one in risky), reverse=True)
        dogs = client.get("/api/images?class=dog&limit=1").json()["total"]
        assert 0 < dogs < COUNT and client.get("/api/images?q=img000999").json()["total"] == 1
        assert len(read) == COUNT
        held = client.get("/api/images/f000/img000999.jpg/answer").json()
        assert len(held["instances"]) == 5 and read[COUNT:] == ["f000/img000999.jpg"]
