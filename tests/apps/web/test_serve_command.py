"""``annofree serve`` as a process: its address, a kill, and another start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.serving import OURS, make_photos, make_workspace, open_client

from annofree.apps.web.options import PORT, Address
from annofree.apps.web.start import find_socket, require_web
from annofree.errors import InputError
from annofree.runs.corrections.journal import Journal, read_histories


def test_what_was_answered_survives_a_kill_and_another_start(tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "out"
    command = [sys.executable, "-m", "annofree", "serve", str(photos), "--out", str(out), "--port", "0"]
    with subprocess.Popen([*command, "--models", "tiny", "--device", "cpu"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("open ").strip()
        assert address.startswith("http://127.0.0.1:")
        with httpx.Client(base_url=address, headers=OURS, timeout=60) as client:
            mask = {"size": [8, 12], "counts": [0, 2, 94]}
            body = {"acts": [{"act": "add", "class": "dog", "mask": mask}], "revision": 0}
            assert client.post("/api/images/a.jpg/acts", json=body).status_code == 200
        with pytest.raises(InputError, match="one server at a time"):
            Journal(out)
        process.send_signal(signal.SIGKILL)
    (one,) = read_histories(out)["a.jpg"].fold().decided.values()
    assert (one.name, one.state) == ("dog", "accepted")
    with open_client(make_workspace(out, photos, names="")) as client:
        held = client.get("/api/images/a.jpg/answer").json()
        assert [i["class"] for i in held["instances"]] == ["dog"] and held["revision"] == 1


def test_the_next_free_port_is_taken_unless_one_is_asked_for() -> None:
    with find_socket(Address()) as first, find_socket(Address()) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        assert PORT <= ports[0] < ports[1]
        with pytest.raises(InputError, match="choose another --port"):
            find_socket(Address(port=ports[0]))
    with pytest.raises(InputError, match="choose another --host"):
        find_socket(Address("192.0.2.1", token="a-long-enough-token"))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r'pip install "annofree\[web\]"'):
        require_web()


def test_what_cannot_be_opened_is_one_message(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    for target, words in ((tmp_path / "none", "expected the folder of a run"), (tmp_path / "file.txt", "expected the folder")):
        said = cli("serve", target, "--out", tmp_path / "out", "--models", "tiny", "--port", "0")
        assert said.code == 2 and words in said.err
    said = cli("serve", "--method", "zipp", "--out", tmp_path / "out")
    assert said.code == 2 and "unknown method" in said.err


def test_a_workspace_has_corrections_alone(cli: Cli, tmp_path: Path) -> None:
    make_workspace(tmp_path / "out", make_photos(tmp_path / "photos")).close()
    said = cli("export", tmp_path / "out", "--format", "coco", "--no-corrections", "--out", tmp_path / "labels")
    assert said.code == 2 and "leave --no-corrections out" in said.err
