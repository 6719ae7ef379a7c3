"""What people submit in Label Studio is found on the page and in the export of the workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.support.label_studio import BRUSH, SIZE, build_region, draw_mask, write_picture

from annofree.apps.web.export_files import make_export
from annofree.apps.web.label_studio.backend import Backend
from annofree.apps.web.label_studio.desk import Desk
from annofree.apps.web.label_studio.pictures import Pictures
from annofree.apps.web.label_studio.router import find_pictures
from annofree.apps.web.options import Address, ServeOptions
from annofree.apps.web.service import Service
from annofree.apps.web.start import open_app
from annofree.apps.web.workspace import Opening, Workspace
from annofree.ops.brush import encode_brush
from annofree.ops.rle import encode_rle
from annofree.pipelines.plan import Plan
from annofree.runs.corrections.acts import Instance, name_instance
from annofree.runs.corrections.answers import Answer
from annofree.structures import Vocabulary

PLAN = Plan(("instance",), None, "default", "tiny", "found", "cpu", policy="answer")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write_picture(tmp_path / "photos" / "a" / "one.png")
    service = Service(PLAN)
    names = Vocabulary.of("cat, dog")
    opened = Workspace(Opening(tmp_path / "work", "photos", images=tmp_path / "photos", vocabulary=names), service)
    yield opened
    opened.close()
    service.close()


def find_machine(workspace: Workspace, image: str) -> None:
    """What the machine says: a cat and a dog."""
    masks = [draw_mask(), ~draw_mask()]
    rles = [encode_rle(mask) for mask in masks]
    found = [Instance(name_instance(n, r), n, r, 0.5) for n, r in zip(("cat", "dog"), rles, strict=True)]
    workspace.answers.write(image, workspace.asked, Answer(SIZE, tuple(found)))


def submit(workspace: Workspace, pictures: Pictures, address: str, masks: dict[str, Any], who: int = 5) -> None:
    regions = [
        build_region("brushlabels", {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}, id=label)
        for label, mask in masks.items()
    ]
    backend = Backend(workspace.service, pictures, Desk(workspace))
    annotation = {"id": 3, "result": regions, "completed_by": {"id": who, "email": f"{who}@example.org"}}
    task = {"id": 7, "data": {"image": address}}
    body = {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task, "project": {"label_config": BRUSH}}
    assert backend.take(body)["kept"] == 1


def read_export(workspace: Workspace) -> list[dict[str, Any]]:
    made = make_export(workspace, "coco")
    held = json.loads(made.path.read_text())
    made.remove()
    names, images = (
        {row["id"]: row[key] for row in held[kind]} for kind, key in (("categories", "name"), ("images", "file_name"))
    )
    return [a | {"name": names[a["category_id"]], "image": images[a["image_id"]]} for a in held["annotations"]]


def list_shown(workspace: Workspace, image: str) -> list[tuple[str, str, str]]:
    one = workspace.find(image)
    answer = workspace.find_answer(one) or Answer(SIZE, ())
    return [(row["class"], row["source"], row["state"]) for row in workspace.show(one, answer)["instances"]]


def test_a_submission_is_accepted_deleted_and_added_instances_of_the_image(workspace: Workspace) -> None:
    find_machine(workspace, "a/one.png")
    new = np.zeros(SIZE, bool)
    new[2:9, 3:11] = True
    submit(workspace, find_pictures(workspace), "/data/local-files/?d=a/one.png", {"cat": draw_mask(), "D": new})
    assert list_shown(workspace, "a/one.png") == [("cat", "machine", "accepted"), ("dog", "human", "accepted")]
    rows = read_export(workspace)
    assert [(row["name"], row["image"], row["area"], row["source"]) for row in rows] == [
        ("cat", "a/one.png", int(draw_mask().sum()), "machine"),
        ("dog", "a/one.png", 56, "human"),
    ]
    assert {row["who"] for row in rows} == {"label-studio: 5@example.org"} and {row["tier"] for row in rows} == {"S4"}


def test_the_same_again_changes_nothing_and_another_takes_its_place(workspace: Workspace) -> None:
    pictures, address = find_pictures(workspace), "/data/local-files/?d=a/one.png"
    find_machine(workspace, "a/one.png")
    submit(workspace, pictures, address, {"cat": draw_mask()})
    before = workspace.journal.revision
    submit(workspace, pictures, address, {"cat": draw_mask()})
    assert workspace.journal.revision == before
    submit(workspace, pictures, address, {"D": draw_mask()})
    assert [(row["name"], row["source"]) for row in read_export(workspace)] == [("dog", "human")]
    submit(workspace, pictures, address, {})
    assert read_export(workspace) == [] and workspace.describe()["counts"]["reviewed"] == 1


def test_a_picture_from_elsewhere_is_taken_in_once(workspace: Workspace, tmp_path: Path) -> None:
    write_picture(tmp_path / "other" / "b.png")
    for mask in (draw_mask(), ~draw_mask()):
        submit(workspace, Pictures(tmp_path / "other"), "/data/local-files/?d=b.png", {"cat": mask})
    (row,) = read_export(workspace)
    assert row["image"].startswith("uploads/label-studio-") and row["image"].endswith(".png")
    assert row["area"] == int((~draw_mask()).sum()) and len(workspace.images) == 2


def test_where_pictures_are_is_told_by_the_variables_of_label_studio(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_pictures(workspace).root == tmp_path / "photos" and find_pictures(workspace).host is None
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://localhost:8080")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(tmp_path))
    found = find_pictures(workspace)
    assert (found.root, found.host, found.key) == (tmp_path, "http://localhost:8080", "abc")


def test_the_server_of_the_page_answers_label_studio(tmp_path: Path) -> None:
    write_picture(tmp_path / "photos" / "one.png")
    options = ServeOptions(method={"models": "tiny", "device": "cpu"}, out=tmp_path / "work")
    token = "a-token-of-some-length"
    with TestClient(open_app(tmp_path / "photos", options, Address(token=token)), "http://localhost") as client:
        assert client.get("/health").status_code == 401
        client.auth = ("anyone", token)
        assert client.get("/health").json()["status"] == "UP"
        assert "tiny" in client.post("/setup", json={"project": "1.2", "schema": BRUSH}).json()["model_version"]
        task = {"id": 1, "data": {"image": "/data/local-files/?d=one.png"}}
        annotation = {"id": 1, "result": [], "completed_by": 2}
        body = {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task, "project": {"label_config": BRUSH}}
        assert client.post("/webhook", json=body).status_code == 201
        assert client.get("/api/images?state=reviewed").json()["images"][0]["id"] == "one.png"
