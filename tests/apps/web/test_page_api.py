"""The page's interface: images listed and answered, what people correct kept, exported and found again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from starlette.testclient import TestClient
from tests.support.serving import StandIn, make_photos, make_workspace, open_client, plain_mask

from annofree.apps.web.workspace import Workspace
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.io.callbacks import Callbacks
from annofree.pipelines.export import export
from annofree.runs.corrections.training_labels import write_training_labels

SIZE = (8, 12)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture
def workspace(tmp_path: Path, photos: Path) -> Workspace:
    return make_workspace(tmp_path / "out", photos)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    with open_client(workspace) as opened:
        yield opened


def answer(client: TestClient, id_: str = "a.jpg") -> Any:
    return client.get(f"/api/images/{id_}/answer").json()


def act(client: TestClient, *acts: dict[str, Any], id_: str = "a.jpg") -> Any:
    revision = answer(client, id_)["revision"]
    said = client.post(f"/api/images/{id_}/acts", json={"acts": list(acts), "revision": revision})
    assert said.status_code == 200, said.text
    return said.json()


def test_the_workspace_says_what_is_asked(client: TestClient) -> None:
    held = client.get("/api/workspace").json()
    assert (held["kind"], held["images"], held["method"], held["preset"]) == ("folder", 3, "consensus", "tiny")
    assert [c["name"] for c in held["classes"]] == ["dog", "cat"] and held["classes"][0]["color"].startswith("#")
    assert held["who"] == "ann" and held["counts"] == {"reviewed": 0, "corrected": 0}
    assert {"consensus", "zip"} <= {m["name"] for m in held["methods"]} and "coco" in {f["name"] for f in held["formats"]}


def test_images_are_paged_and_found(client: TestClient) -> None:
    page = client.get("/api/images?limit=2").json()
    assert page["total"] == 3 and [one["id"] for one in page["images"]] == ["a.jpg", "b c.png"]
    assert (page["images"][0]["width"], page["images"][0]["height"], page["images"][0]["instances"]) == (12, 8, None)
    assert [one["id"] for one in client.get("/api/images?offset=2").json()["images"]] == ["deep/d.jpg"]
    assert client.get("/api/images?q=DEEP").json()["total"] == 1
    answer(client, "deep/d.jpg")
    assert client.get("/api/images", params={"class": "dog"}).json()["images"][0]["instances"] == 1
    act(client, {"act": "reviewed"}, id_="deep/d.jpg")
    assert [client.get(f"/api/images?state={s}").json()["total"] for s in ("all", "open", "reviewed", "corrected")] == [
        3,
        2,
        1,
        0,
    ]
    assert client.get("/api/images?order=risk").json()["images"][-1]["id"] == "deep/d.jpg"


def test_an_answer_has_masks_and_what_the_policy_drops(client: TestClient) -> None:
    held = answer(client, "deep%2Fd.jpg")
    first, second = held["instances"]
    assert (held["width"], held["height"], held["revision"], held["state"]) == (12, 8, 0, "open")
    assert first["class"] == "dog" and first["kept"] and first["box"] == [0, 0, 6, 8]
    assert first["mask"] == {"size": [8, 12], "counts": [0, 48, 48]}
    assert not second["kept"] and second["verdict"] == "less likely than 0.5"
    assert (first["source"], first["state"], first["who"]) == ("machine", "open", None)


def test_other_names_are_answered_anew_and_old_answers_are_not_shown(client: TestClient, workspace: Workspace) -> None:
    answer(client)
    held = client.put("/api/classes", json={"classes": [{"name": "cow", "synonyms": ["ox"]}]}).json()
    assert held["version"] == 1 and held["classes"][0]["synonyms"] == ["ox"]
    assert answer(client)["instances"][0]["class"] == "cow"
    assert client.put("/api/settings", json={"policy": "all"}).json()["policy"] == "all"
    assert client.get("/api/revisions").json() == {"revision": 0, "version": 2, "images": []}
    assert client.put("/api/classes", json={"classes": []}).json()["classes"] == []
    assert answer(client)["instances"] == []


def test_what_was_chosen_on_the_page_is_chosen_at_the_next_start(
    client: TestClient, workspace: Workspace, tmp_path: Path
) -> None:
    client.put("/api/settings", json={"method": "zip", "policy": "all"})
    workspace.journal.close()
    again = make_workspace(tmp_path / "out", tmp_path / "photos", names="")
    told = again.describe()
    assert (told["method"], told["policy"], [c["name"] for c in told["classes"]]) == ("zip", "all", ["dog", "cat"])
    again.service.close()
    again.close()


def test_settings_change_while_an_answer_is_made(tmp_path: Path, photos: Path) -> None:
    workspace = make_workspace(tmp_path / "out", photos, now=StandIn(0.3))
    with open_client(workspace) as client, ThreadPoolExecutor(2) as threads:
        first = threads.submit(answer, client)
        second = threads.submit(client.put, "/api/settings", json={"policy": "all"})
        assert first.result(60)["instances"] and second.result(60).json()["policy"] == "all"
        assert answer(client)["version"] == 1


def test_an_answer_is_kept(client: TestClient, workspace: Workspace) -> None:
    answer(client)
    answer(client)
    now = workspace.service.now
    assert isinstance(now, StandIn) and now.asked == 1


def test_pictures_come_small_and_large_and_are_not_sent_twice(client: TestClient, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4000, 1000), "blue").save(tmp_path / "photos" / "a.jpg")
    for what, size in (("thumbnail", (256, 64)), ("picture", (1600, 400))):
        first = client.get(f"/api/images/a.jpg/{what}")
        with PIL.Image.open(io.BytesIO(first.content)) as image:
            assert (image.format, image.size) == ("JPEG", size)
        again = client.get(f"/api/images/a.jpg/{what}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert len(list((tmp_path / "out/serve/thumbnails").rglob("*.jpg"))) == 1
    (tmp_path / "photos" / "a.jpg").unlink()
    assert client.get("/api/images/a.jpg/picture").status_code == 404


def test_what_is_corrected_survives_another_start(
    client: TestClient, workspace: Workspace, photos: Path, tmp_path: Path
) -> None:
    one = answer(client)["instances"][0]["id"]
    mask = plain_mask(SIZE, slice(0, 3), slice(8, 12))
    act(client, {"act": "rename", "instance": one, "class": "wolf"}, {"act": "add", "class": "cat", "mask": mask})
    client.put("/api/classes", json={"classes": [{"name": "horse"}]})
    journal = tmp_path / "out/corrections/journal.jsonl"
    kept = journal.read_bytes()
    workspace.journal.close()  # as a kill would
    again = make_workspace(tmp_path / "out", photos, names="")
    with open_client(again) as other:
        held = answer(other)
        assert [(i["class"], i["state"], i["source"]) for i in held["instances"]][-2:] == [
            ("wolf", "accepted", "human"),
            ("cat", "accepted", "human"),
        ]
        assert held["instances"][-1]["mask"] == mask and held["undo"] and not held["redo"]
        assert [c["name"] for c in other.get("/api/workspace").json()["classes"]] == ["horse"]
    assert journal.read_bytes() == kept


def test_two_tabs_do_not_overwrite_each_other(client: TestClient) -> None:
    act(client, {"act": "reviewed"})
    late = client.post("/api/images/a.jpg/acts", json={"acts": [{"act": "unreviewed"}], "revision": 0})
    assert late.status_code == 409 and late.json()["answer"]["revision"] == 1
    assert client.get("/api/revisions?since=0").json()["images"] == ["a.jpg"]
    assert client.get("/api/revisions?since=1").json()["images"] == []
    assert client.post("/api/images/a.jpg/undo", json={"revision": 0}).status_code == 409
    assert client.post("/api/images/a.jpg/undo", json={"revision": 1}).json()["state"] == "open"
    assert client.post("/api/images/a.jpg/redo").json()["state"] == "reviewed"
    assert client.post("/api/images/a.jpg/redo").status_code == 400


def test_a_click_draws_and_what_was_drawn_can_be_added(client: TestClient) -> None:
    drawn = client.post("/api/images/a.jpg/segment", json={"points": [[1, 1, 1]], "box": None}).json()
    assert drawn["box"] == [0, 0, 3, 2] and drawn["score"] == 0.75
    held = act(client, {"act": "add", "class": "cat", "mask": drawn["mask"]})
    assert held["instances"][-1]["mask"] == drawn["mask"] and held["instances"][-1]["id"] == "h1"


def test_the_export_says_whose_each_label_is(client: TestClient, tmp_path: Path) -> None:
    dog = answer(client)["instances"][0]["id"]
    act(client, {"act": "accept", "instance": dog})
    act(client, {"act": "add", "class": "bird", "mask": plain_mask(SIZE, slice(0, 2), slice(9, 12))})
    gone = answer(client, "b c.png")["instances"][0]["id"]
    act(client, {"act": "delete", "instance": gone}, {"act": "reviewed"}, id_="b c.png")
    answer(client, "deep/d.jpg")
    held = client.get("/api/export?format=coco").json()
    images = {row["id"]: row for row in held["images"]}
    names = {row["id"]: row["name"] for row in held["categories"]}
    rows = [
        (images[r["image_id"]]["file_name"], names[r["category_id"]], r["source"], r.get("who"), r.get("tier"), r.get("score"))
        for r in held["annotations"]
    ]
    assert rows == [
        ("a.jpg", "dog", "machine", "ann", "S4", pytest.approx(0.9)),
        ("a.jpg", "bird", "human", "ann", "S4", None),
        ("deep/d.jpg", "dog", "machine", None, None, pytest.approx(0.9)),
    ]
    assert {row["file_name"]: row["reviewed"] for row in held["images"]} == {
        "a.jpg": False,
        "b c.png": True,
        "deep/d.jpg": False,
    }
    assert held["info"]["corrections"]["who"] == ["ann"]
    notes: list[str] = []
    report = export(tmp_path / "out", tmp_path / "coco", format="coco", callbacks=Callbacks(on_note=notes.append))
    assert report.lost == 0 and "what ann corrected" in notes[0]
    assert CocoFile.read(tmp_path / "coco" / "annotations.json").annotations == held["annotations"]


@pytest.mark.parametrize("name", ["yolo-seg", "voc", "label-studio", "cvat", "labelme", "png", "coco-polygons"])
def test_the_export_comes_in_every_format(client: TestClient, name: str) -> None:
    act(client, {"act": "reviewed"})
    said = client.get("/api/export", params={"format": name})
    assert said.status_code == 200 and "attachment" in said.headers["content-disposition"]
    if name != "coco-polygons":
        with zipfile.ZipFile(io.BytesIO(said.content)) as packed:
            assert "fidelity.json" in packed.namelist()


def test_a_workspace_without_names_or_images_waits_for_both(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "out", None, names="")
    with open_client(workspace) as client:
        assert client.get("/api/images").json() == {"total": 0, "offset": 0, "images": []}
        file = io.BytesIO()
        PIL.Image.new("RGB", (12, 8)).save(file, "PNG")
        assert client.post("/api/images", files=[("files", ("x.png", file.getvalue()))]).json()["added"] == ["uploads/x.png"]
        assert answer(client, "uploads/x.png")["instances"] == []
        client.put("/api/classes", json={"classes": [{"name": "dog"}]})
        assert answer(client, "uploads/x.png")["instances"][0]["class"] == "dog"
        act(client, {"act": "reviewed"}, id_="uploads/x.png")
    labels = CocoFile.read(write_training_labels(tmp_path / "out", tmp_path / "labels"))
    assert [image["file_name"] for image in labels.images] == ["uploads/x.png"]
    assert labels.info["images"] == str((tmp_path / "out/serve").resolve())


def test_a_workspace_of_other_images_is_refused(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one server at a time"):
        make_workspace(tmp_path / "out", tmp_path / "photos")
    workspace.journal.close()
    with pytest.raises(InputError, match="choose another --out"):
        make_workspace(tmp_path / "out", make_photos(tmp_path / "others"))


def test_labels_to_learn_from_are_of_the_corrected_images_alone(client: TestClient, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are none"):
        write_training_labels(tmp_path / "out", tmp_path / "none")
    answer(client, "deep/d.jpg")
    act(client, {"act": "add", "class": "bird", "mask": plain_mask(SIZE, slice(0, 2), slice(9, 12))})
    dog = answer(client, "b c.png")["instances"][0]["id"]
    act(client, {"act": "reject", "instance": dog}, {"act": "reviewed"}, id_="b c.png")
    labels = CocoFile.read(write_training_labels(tmp_path / "out", tmp_path / "labels"))
    assert [image["file_name"] for image in labels.images] == ["a.jpg", "b c.png"]
    assert [row["image_id"] for row in labels.annotations] == [1, 1]
    notes: list[str] = []
    (tmp_path / "photos" / "b c.png").unlink()
    place = write_training_labels(tmp_path / "out", tmp_path / "fewer", names=("bird",), say=notes.append)
    assert len(json.loads(place.read_text())["annotations"]) == 1
    assert [note.split()[0] for note in notes] == ["1", "corrections"]
