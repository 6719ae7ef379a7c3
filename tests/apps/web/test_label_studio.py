"""Label Studio's protocol: what is set up, predicted, drawn by prompts, and kept of what people submit."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.support.label_studio import APART, BRUSH, SIZE, KnownService, build_config, build_region, draw_mask, write_picture

from annofree.apps.web.label_studio.backend import Backend
from annofree.apps.web.label_studio.pictures import Pictures
from annofree.apps.web.label_studio.router import add_routes
from annofree.apps.web.requests import add_error_answers
from annofree.apps.web.security import Guard, Rules
from annofree.errors import InputError
from annofree.formats.annotations import Annotation
from annofree.ops.brush import decode_brush, encode_brush
from annofree.ops.rle import decode_rle

PATHS = ("/setup", "/predict", "/webhook")
TASK = {"id": 7, "data": {"image": "/data/local-files/?d=a.png"}, "project": 1}


class KnownDesk:
    """Remembers what it is to keep."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Sequence[Annotation], str]] = []

    def find_image(self, address: str, file: Path | None, read: Callable[[], bytes]) -> str:
        assert file is not None and read() == file.read_bytes()
        return file.name

    def keep_answer(self, image: str, size: tuple[int, int], things: Sequence[Annotation], who: str) -> None:
        assert size == SIZE
        self.kept.append((image, things, who))


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    write_picture(tmp_path / "a.png")
    return Backend(cast(Any, KnownService()), Pictures(tmp_path), KnownDesk())


def predict(backend: Backend, config: str, context: Any = None, tasks: Any = None) -> Any:
    return backend.predict({"tasks": tasks or [TASK], "label_config": config, "params": {"context": context}})


def only_result(answer: Any) -> Any:
    (one,) = answer["results"]
    assert one["score"] is not None and one["model_version"].startswith("annofree ")
    return one["result"]


def test_a_version_changes_with_the_names_alone(backend: Backend) -> None:
    versions = [backend.set_up({"schema": text})["model_version"] for text in (BRUSH, BRUSH, build_config("BrushLabels"))]
    assert versions[0] == versions[1] != versions[2] and "zip tiny" in versions[0]


def test_a_mask_is_given_as_a_brush_under_the_alias_of_its_label(backend: Backend) -> None:
    (region,) = only_result(predict(backend, BRUSH))
    assert (region["from_name"], region["to_name"], region["type"]) == ("brush", "photo", "brushlabels")
    assert (region["original_height"], region["original_width"]) == SIZE and region["score"] == 0.75
    assert region["value"]["brushlabels"] == ["D"] and region["value"]["format"] == "rle"
    assert np.array_equal(decode_brush(region["value"]["rle"], SIZE), draw_mask())


def test_a_mask_is_given_as_a_box_in_percent(backend: Backend) -> None:
    (region,) = only_result(predict(backend, build_config("RectangleLabels")))
    value = region["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == pytest.approx([10, 10, 46 / 60 * 100, 80])
    assert value["rectanglelabels"] == ["dog"]


def test_a_mask_is_given_as_a_polygon_a_part(backend: Backend) -> None:
    regions = only_result(predict(backend, build_config("PolygonLabels")))
    assert len({region["id"] for region in regions}) == 2 and all(r["value"]["polygonlabels"] == ["dog"] for r in regions)
    assert sorted(map(len, (r["value"]["points"] for r in regions)))[0] == 4


def test_a_shape_and_its_label_may_be_two_results(backend: Backend) -> None:
    shape, label = only_result(predict(backend, APART))
    assert shape["id"] == label["id"] and (shape["type"], label["type"]) == ("brush", "labels")
    assert "labels" not in shape["value"] and label["value"]["labels"] == ["cat"]
    assert (shape["from_name"], label["from_name"]) == ("b", "l")


def test_a_task_that_cannot_be_answered_gets_no_prediction_and_the_others_do(backend: Backend) -> None:
    lost = {"id": 8, "data": {"image": "/data/local-files/?d=../a.png"}}
    answer = predict(backend, BRUSH, tasks=[lost, TASK, {"id": 9, "data": {}}])
    assert [bool(one) for one in answer["results"]] == [False, True, False] and set(answer["failed"]) == {"8", "9"}
    with pytest.raises(InputError, match="found none"):
        predict(backend, BRUSH, tasks=[lost])


@pytest.mark.parametrize(
    "body", [{}, {"tasks": []}, {"tasks": [3]}, {"tasks": "x"}, {"tasks": [TASK]}, {"tasks": [TASK] * 1001}]
)
def test_what_is_no_request_is_refused(backend: Backend, body: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        backend.predict(body)


def test_points_and_a_box_are_a_prompt(backend: Backend) -> None:
    on = build_region("keypointlabels", {"x": 50, "y": 25, "width": 1, "keypointlabels": ["cat"]}, is_positive=1)
    off = build_region("keypointlabels", {"x": 10, "y": 100, "width": 1, "keypointlabels": ["cat"]}, is_positive=0)
    box = build_region("rectanglelabels", {"x": 10, "y": 10, "width": 50, "height": 20, "rectanglelabels": ["cat"]})
    (region,) = only_result(predict(backend, BRUSH, {"result": [on, off, box]}))
    service = cast(KnownService, backend.service)
    assert service.asked == [(SIZE, ((30.0, 10.0, 1), (6.0, 40.0, 0)), (6.0, 4.0, 36.0, 12.0))]
    assert region["value"]["brushlabels"] == ["cat"] and decode_brush(region["value"]["rle"], SIZE).sum() == 200


@pytest.mark.parametrize(
    "regions",
    [
        [build_region("choices", {"choices": ["a"]})],
        [build_region("keypointlabels", {"x": "here", "y": 25, "keypointlabels": ["cat"]})],
        [build_region("keypointlabels", {"x": 50, "y": 25, "keypointlabels": ["nothing"]})],
        [build_region("keypoint", {"x": 50, "y": 25})],
        [build_region("rectanglelabels", {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 5, "rectanglelabels": ["cat"]})],
        [build_region("keypointlabels", {"x": 50, "y": 25, "keypointlabels": ["cat"]}, original_width=None)],
        [build_region("keypointlabels", {"x": 50, "y": 25, "keypointlabels": ["cat"]}, original_width=61)],
        [3],
        "x",
    ],
)
def test_what_is_no_prompt_is_refused(backend: Backend, regions: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        predict(backend, BRUSH, {"result": regions})


def submit(backend: Backend, regions: list[Any], action: str = "ANNOTATION_CREATED", **more: Any) -> Any:
    annotation = {"id": 3, "result": regions, "completed_by": 5, **more}
    return backend.take({"action": action, "annotation": annotation, "task": TASK, "project": {"id": 1, "label_config": BRUSH}})


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_a_submitted_annotation_is_kept_as_masks_under_the_names_that_were_asked(backend: Backend, action: str) -> None:
    brush = build_region("brushlabels", {"format": "rle", "rle": encode_brush(draw_mask()), "brushlabels": ["D"]})
    box = build_region("rectanglelabels", {"x": 10, "y": 10, "width": 50, "height": 20, "rectanglelabels": ["cat"]}, id="r2")
    text = {"id": "c", "type": "choices", "from_name": "c", "to_name": "photo", "value": {"choices": ["ok"]}}
    assert submit(backend, [brush, box, text], action) == {"status": "ok", "kept": 1}
    ((image, things, who),) = cast(KnownDesk, backend.desk).kept
    assert image == "a.png" and who == "label-studio: 5" and [thing.name for thing in things] == ["dog", "cat"]
    masks = [decode_rle(thing.rle) for thing in things if thing.rle is not None]
    assert np.array_equal(masks[0], draw_mask()) and masks[1].sum() == 30 * 8 and masks[1][4:12, 6:36].all()


def test_an_annotation_without_regions_says_that_nothing_is_there(backend: Backend) -> None:
    submit(backend, [])
    assert cast(KnownDesk, backend.desk).kept == [("a.png", [], "label-studio: 5")]


def test_cancelled_annotations_and_other_events_are_passed_over(backend: Backend) -> None:
    assert submit(backend, [], was_cancelled=True)["kept"] == 0
    assert backend.take({"action": "TASKS_CREATED", "tasks": [TASK]})["kept"] == 0 and cast(KnownDesk, backend.desk).kept == []


def test_nothing_is_kept_of_an_annotation_that_cannot_be_read_in_full(backend: Backend) -> None:
    good = build_region("brushlabels", {"format": "rle", "rle": encode_brush(draw_mask()), "brushlabels": ["cat"]})
    huge = build_region("brushlabels", {"format": "rle", "rle": [255] * 8, "brushlabels": ["cat"]}, original_width=20000)
    ellipse = build_region("ellipselabels", {"x": 1, "y": 1, "radiusX": 3, "radiusY": 3, "ellipselabels": ["cat"]})
    for bad in (huge, ellipse, build_region("brushlabels", {"rle": [0], "brushlabels": ["cat"]}), build_region("brush", {})):
        with pytest.raises(InputError, match="region 2"):
            submit(backend, [good, bad])
    assert cast(KnownDesk, backend.desk).kept == []


def ask(backend: Backend, token: str | None = None) -> TestClient:
    app = FastAPI()
    add_error_answers(app)
    add_routes(app, backend)
    return TestClient(Guard(app, Rules(token=token, open_paths=PATHS)), "http://localhost")


def test_the_addresses_answer_as_label_studio_expects(backend: Backend) -> None:
    client = ask(backend)
    assert client.get("/health").json()["status"] == "UP"
    assert client.post("/setup", json={"project": "1.2", "schema": BRUSH}).json()["model_version"]
    answered = client.post("/predict", json={"tasks": [TASK], "label_config": BRUSH, "params": {"context": None}})
    assert answered.status_code == 200 and len(answered.json()["results"]) == 1
    assert client.post("/webhook", json={"action": "PROJECT_UPDATED"}).status_code == 201
    refused = client.post("/setup", json={"schema": "<View/>"})
    assert refused.status_code == 400 and "labeling interface" in refused.json()["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"{", b'{"action": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused_in_a_sentence(backend: Backend, path: str, body: bytes) -> None:
    answer = ask(backend).post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"].startswith("expected")


@pytest.mark.parametrize(
    "heads",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Origin": "http://evil.example"},
        {"Content-Type": "application/json", "Origin": "http://localhost"},
        {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "application/json", "Host": "evil.example"},
    ],
)
def test_a_page_of_another_site_is_refused(backend: Backend, heads: dict[str, str]) -> None:
    answer = ask(backend).post("/webhook", content='{"action": "ANNOTATION_CREATED"}', headers=heads)
    assert answer.status_code in (400, 403, 421) and answer.json()["error"].startswith("expected")


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize("said", ["", "Bearer", "Bearer secre", "Basic", "Basic %%%", basic("secret"), basic("secret:")])
def test_with_a_token_nobody_else_is_answered(backend: Backend, said: str) -> None:
    client = ask(backend, "secret")
    heads = {"Authorization": said} if said else {}
    assert client.get("/health", headers=heads).status_code == 401
    assert {client.post(path, json={"schema": BRUSH}, headers=heads).status_code for path in PATHS} == {401}


@pytest.mark.parametrize("said", ["Bearer secret", basic("anyone:secret"), basic(":secret")])
def test_a_token_is_a_bearer_or_the_password(backend: Backend, said: str) -> None:
    assert ask(backend, "secret").post("/setup", json={"schema": BRUSH}, headers={"Authorization": said}).status_code == 200


@pytest.mark.parametrize("more", [{"params": 5}, {"params": "x"}, {"params": {"context": "x"}}])
def test_a_question_of_another_form_is_one_message(backend: Backend, more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="as an object"):
        backend.predict({"tasks": [TASK], "label_config": BRUSH, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"project": 5},
        {"project": "x"},
        {"annotation": [{}], "task": None},
        {"annotation": [{}, {}], "task": [TASK]},
        {"annotation": [], "task": 5},
        {"annotation": {"result": 5}},
        {"annotation": {"result": [[]]}},
        {"annotation": {"result": [{"type": [], "value": {}}]}},
        {"annotation": {"result": [{"type": "labels", "value": [1]}]}},
        {"annotation": {"result": [{"type": "brush", "id": [1]}]}},
    ],
)
def test_a_submission_of_another_form_is_one_message(backend: Backend, more: dict[str, Any]) -> None:
    sent = {"action": "ANNOTATION_CREATED", "task": TASK, "project": {"label_config": BRUSH}, **more}
    with pytest.raises(InputError, match="expected"):
        backend.take(sent)
    assert not cast(KnownDesk, backend.desk).kept


def test_who_submitted_is_kept_short(backend: Backend) -> None:
    sent = {"action": "ANNOTATION_CREATED", "task": TASK, "project": {"label_config": BRUSH}}
    backend.take(sent | {"annotation": {"result": [], "completed_by": {"email": "x" * 10_000}}})
    assert len(cast(KnownDesk, backend.desk).kept[0][2]) <= 200
