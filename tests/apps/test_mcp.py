"""The tools for language models, called by the protocol's own client in this process."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import PIL.Image
import pytest
from mcp import Client, StdioServerParameters

from annofree.apps.cli.commands.mcp import mcp as command
from annofree.apps.mcp.server import build_server
from annofree.apps.mcp.tools import MOST_BYTES, Tools
from annofree.errors import InputError


def call(root: Path, *calls: tuple[str, dict[str, Any]], heard: list[Any] | None = None) -> list[Any]:
    """Call tools of one server, one after another."""

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        if heard is not None:
            heard.append((progress, total))

    async def ask() -> list[Any]:
        async with Client(build_server(root, "tiny", "cpu")) as client:
            return [await client.call_tool(name, arguments, progress_callback=listen) for name, arguments in calls]

    return anyio.run(ask)


def read_answer(answer: Any) -> tuple[Any, PIL.Image.Image | None]:
    """The facts and the image of an answer."""
    assert not answer.is_error, answer.content[0].text
    facts, *pictures = answer.content
    data = [base64.b64decode(one.data) for one in pictures]
    assert all(len(one) <= MOST_BYTES for one in data) and len(data) <= 1
    return json.loads(facts.text), PIL.Image.open(BytesIO(data[0])) if data else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "photos").mkdir(parents=True)
    shutil.copy("examples/scenes/oranges.jpg", folder / "photos")
    (tmp_path / "secret.jpg").write_bytes((folder / "photos" / "oranges.jpg").read_bytes())
    (folder / "link").symlink_to(tmp_path)
    return folder


def test_a_folder_is_segmented_asked_for_other_names_and_reported(root: Path) -> None:
    heard: list[Any] = []
    segment, relabel, report = call(
        root,
        ("segment", {"images": "photos", "classes": "orange", "out": "run"}),
        ("relabel", {"run": "run", "classes": "elephant", "out": "other"}),
        ("report", {"run": "run"}),
        heard=heard,
    )
    facts, picture = read_answer(segment)
    assert facts["run"] == "run" and facts["by_class"] == {"orange": facts["instances"]} and facts["instances"] > 0
    assert facts["failed"] == {"count": 0, "first": {}} and facts["files"]["annotations"] == "run/annotations.json"
    assert picture is not None and picture.format == "JPEG" and len(segment.content[0].text) < 2000
    assert (root / "run" / "annotations.json").is_file() and (1, 1) in heard
    facts, picture = read_answer(relabel)
    assert facts["run"] == "other" and facts["by_class"] == {} and picture is not None
    facts, picture = read_answer(report)
    assert (root / facts["page"]).is_file() and picture is not None


@pytest.mark.parametrize(
    "place", ["../secret.jpg", "/etc/passwd", "link/secret.jpg", "photos/../../secret.jpg", "", "\0", "a" * 5000]
)
@pytest.mark.parametrize("tool", ["segment", "relabel", "report", "out"])
def test_nothing_outside_of_the_root_is_read_or_written(root: Path, tool: str, place: str) -> None:
    tools = Tools(root, "tiny", "cpu")
    asks: dict[str, Any] = {
        "segment": lambda: tools.segment(place, "orange", "run", None),  # type: ignore[arg-type]
        "relabel": lambda: tools.relabel(place, "orange", "run", None),  # type: ignore[arg-type]
        "report": lambda: tools.report(place),
        "out": lambda: tools.segment("photos", "orange", place, None),  # type: ignore[arg-type]
    }
    with pytest.raises(InputError, match="below"):
        asks[tool]()
    assert sorted(path.name for path in root.iterdir()) == ["link", "photos"]


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("segment", {"images": "none", "classes": "orange"}, "nothing is there"),
        ("segment", {"images": "photos", "classes": ""}, "class"),
        ("segment", {"images": "photos", "classes": "orange", "method": "zipp"}, "zip"),
        ("segment", {"images": "photos", "classes": "orange", "out": "."}, "of its own"),
        ("segment", {"images": "photos", "classes": "orange", "min_score": 2}, "min_score"),
        ("segment", {"images": "photos"}, "classes"),
        ("report", {"run": "photos"}, "not a run folder"),
    ],
)
def test_what_is_refused_is_one_sentence_for_the_model(root: Path, name: str, arguments: Any, said: str) -> None:
    (answer,) = call(root, (name, arguments))
    assert answer.is_error and said in answer.content[0].text and "Traceback" not in answer.content[0].text


def test_the_tools_say_what_they_take_and_doctor_where_paths_are(root: Path) -> None:
    async def ask() -> tuple[Any, Any]:
        async with Client(build_server(root, "tiny", "cpu")) as client:
            return await client.list_tools(), await client.call_tool("doctor", {})

    listed, answer = anyio.run(ask)
    assert [tool.name for tool in listed.tools] == ["segment", "relabel", "report", "doctor"]
    assert all(tool.description for tool in listed.tools)
    assert listed.tools[0].input_schema["required"] == ["images", "classes"]
    facts, _ = read_answer(answer)
    assert facts["root"] == str(root) and facts["preset"] == "tiny"


def test_the_command_speaks_over_standard_input_and_output(root: Path) -> None:
    async def ask() -> Any:
        started = StdioServerParameters(
            command=sys.executable, args=["-m", "annofree", "mcp", "--root", str(root), "--models", "tiny"]
        )
        async with Client(started) as client:
            return await client.list_tools()

    assert len(anyio.run(ask).tools) == 4


def test_a_link_out_of_the_root_is_refused_in_a_folder_too(root: Path) -> None:
    (root / "photos" / "more.jpg").symlink_to(root.parent / "secret.jpg")
    tools = Tools(root, "tiny", "cpu")
    for place in ("photos", "."):
        with pytest.raises(InputError, match="below"):
            tools.segment(place, "orange", "run", None)  # type: ignore[arg-type]


def test_of_a_run_of_images_elsewhere_none_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("annofree.relabel", lambda run, classes, *, out, overlays, callbacks: asked.append(overlays))
    monkeypatch.setattr(Tools, "_tell", lambda self, run: None)
    for images in (root.parent, root / "photos"):
        monkeypatch.setattr("annofree.apps.mcp.tools.find_images_root", lambda run, images=images: images)
        Tools(root, "tiny", "cpu").relabel("photos", "orange", "other", None)  # type: ignore[arg-type]
    assert asked == [False, True]


def test_an_unknown_preset_is_refused_at_once(root: Path) -> None:
    with pytest.raises(InputError, match="unknown"):
        build_server(root, "fastt")


def test_a_root_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--root"):
        build_server(tmp_path / "none", "tiny")


def test_without_the_extra_the_command_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "annofree.apps.mcp.server")
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    with pytest.raises(InputError, match=r'pip install "annofree\[mcp\]"'):
        command(root, "tiny", "cpu")
