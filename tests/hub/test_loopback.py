"""Weights from a hub on this machine to a folder, and what is said of each fault on the way."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save
from tests.support.loopback_hub import LoopbackHub, point_to, serve_hub
from tests.support.models import plain_card

from annofree.errors import AnnofreeError, InputError, MissingError
from annofree.hub import transfer
from annofree.hub.cards import Card, list_known_cards
from annofree.hub.download import fetch, find_present, renew, silence

REPO, SIZE = "makers/toy", 1 << 20
FILES = {
    "config.json": b'{"v": 1}',
    "model.safetensors": save({"w": np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)}),
    "pytorch_model.bin": b"never asked for",
}
NAMES: dict[str, str | None] = {"config.json": None, "model.safetensors": None}
TOY = plain_card(kind="sam", hub=REPO, revision="main", size=SIZE, licence="MIT", files=NAMES)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with serve_hub() as served:
        served.publish(REPO, FILES)
        point_to(monkeypatch, served.hub, tmp_path / "here")
        monkeypatch.setattr(transfer, "_PAUSE", 0.01)
        yield served


def refused(card: Card, kind: type[AnnofreeError], *words: str) -> str:
    with pytest.raises(kind) as refusal:
        fetch([card])
    said = str(refusal.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


def list_partial() -> list[Path]:
    return sorted(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_model_comes_and_is_then_here_without_a_request(hub: LoopbackHub) -> None:
    (local,) = fetch([TOY])
    assert {p.name: p.read_bytes() for p in local.folder.iterdir()} == {name: FILES[name] for name in TOY.files}
    assert local.card.revision == hub.commits[REPO] == local.folder.name
    asked = hub.take_requests()
    assert {r.path.rpartition("/")[2] for r in asked} == set(TOY.files)
    assert sum(r.method == "GET" for r in asked) == 3  # the second file is asked of the hub, which sends to the other host
    assert fetch([TOY]) == [local] and hub.take_requests() == [] and not list_partial()


def test_where_there_is_no_terminal_a_line_a_file_is_said_unless_silenced(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bars = import_module("huggingface_hub.utils.tqdm")  # a class of that name hides it
    monkeypatch.setattr(bars, "HF_HUB_DISABLE_PROGRESS_BARS", None)  # whatever the environment says
    monkeypatch.setattr(bars, "progress_bar_states", {})
    fetch([TOY])
    assert capsys.readouterr().err == "fetching toy config.json (8 B)\nfetching toy model.safetensors (1 MB)\n"
    point_to(monkeypatch, hub.hub, tmp_path / "there")
    silence()
    fetch([TOY])
    assert capsys.readouterr() == ("", "")


def test_the_token_stays_with_the_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    fetch([TOY])
    assert {(r.host, r.authorized) for r in hub.take_requests()} == {("hub", True), ("cdn", False)}


def test_the_dead_servers_of_xet_are_never_asked(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download as client

    monkeypatch.setattr(client, "xet_get", lambda **_: pytest.fail("Xet was asked"))
    assert fetch([TOY])[0].folder.is_dir()


def test_a_connection_that_breaks_is_made_again(hub: LoopbackHub) -> None:
    hub.faults["drop"] = SIZE // 4
    (local,) = fetch([TOY])
    assert (local.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    starts = [r.start for r in hub.take_requests() if r.host == "cdn"]
    assert starts == sorted(set(starts)) and len(starts) >= 4


def test_what_was_broken_off_is_gone_on_with(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults["drop"] = SIZE // 2
    monkeypatch.setattr(transfer, "_TRIES", 1)
    refused(TOY, MissingError, "broke off", "of it are kept", "`annofree models pull toy` goes on where it stopped")
    (kept,) = list_partial()
    held = kept.stat().st_size
    assert 0 < held < SIZE
    hub.faults.clear()
    hub.take_requests()
    assert (fetch([TOY])[0].folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert [r.start for r in hub.take_requests() if r.host == "cdn"] == [held] and not list_partial()


def test_a_server_without_ranges_sends_all_of_it_again(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults["drop"] = SIZE // 2
    monkeypatch.setattr(transfer, "_TRIES", 1)
    refused(TOY, MissingError, "broke off")
    hub.faults = {"whole": True}
    assert (fetch([TOY])[0].folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_damage_is_noticed_and_the_next_pull_is_whole(hub: LoopbackHub) -> None:
    hub.faults["corrupt"] = True
    refused(TOY, InputError, "model.safetensors of toy is damaged", "taken out of the cache", "annofree models pull toy")
    assert find_present(TOY) is None
    hub.faults.clear()
    assert (fetch([TOY])[0].folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


FAULTS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"gate": True}, "", ["asks for its terms to be accepted: do so at {hub}/makers/toy", "hf auth login"]),
    ({"gate": True}, "hf_x", ["terms to be accepted by the account of HF_TOKEN: do so at {hub}/makers/toy, and try again"]),
    ({"gone": True}, "", ["the hub shows no {hub}/makers/toy", "private"]),
    ({"stale": True}, "hf_x", ["refuses the token of HF_TOKEN (401), though {hub}/makers/toy is public", "unset HF_TOKEN"]),
    ({"stale": True, "gate": True}, "hf_x", ["refuses the token of HF_TOKEN (401): it has expired", "hf auth login"]),
    ({"status": 429, "after": 7}, "", ["{hub} answered 429, too many requests; wait 7 seconds", "goes on where it stopped"]),
    ({"status": 429}, "", ["wait some minutes; with a token (`hf auth login`) more are allowed"]),
    ({"status": 503}, "", ["{hub} answered 503, it is down or busy; nothing is wrong here, try again later"]),
    ({"status": 511}, "", ["answers as {hub} is not a hub, but a login page"]),
    ({"portal": True}, "", ["answers as {hub} is not a hub, but a login page", "log in there", "HTTPS_PROXY"]),
    ({"portal_cdn": True}, "", ["is not a hub, but a login page"]),
    ({"lacks": "model.safetensors"}, "", ["lacks one of the files that toy needs as safetensors"]),
]


@pytest.mark.parametrize(("faults", "token", "words"), FAULTS, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_each_fault_is_one_line(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, faults: dict[str, Any], token: str, words: list[str]
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.faults = faults
    said = refused(TOY, MissingError, *(word.format(hub=hub.hub) for word in words))
    assert "models bundle" not in said and find_present(TOY) is None
    hub.faults = {}
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert fetch([TOY])[0].folder.is_dir()


def test_nobody_listens(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9", tmp_path / "here")
    refused(TOY, MissingError, "http://127.0.0.1:9 cannot be reached", "models bundle --out FILE toy")
    assert hub.take_requests() == []


def test_the_other_host_is_named_when_it_is_the_one_that_is_away(hub: LoopbackHub) -> None:
    hub.cdn = "http://localhost:9"
    refused(TOY, MissingError, f"{hub.hub} answers, but localhost, which has the files, cannot be reached")


def test_who_comes_second_waits(hub: LoopbackHub) -> None:
    hub.faults["slow"] = 0.002
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: fetch([TOY])[0], range(2))
    assert one == other and sum(r.host == "cdn" for r in hub.take_requests()) == 1


def test_a_full_disk_is_told_before_and_in_the_middle(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    room, words = shutil.disk_usage(constants.HF_HUB_CACHE.rpartition("/here")[0]), ("no room for toy (about 1 MB)", "HF_HOME")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: room._replace(free=SIZE // 2))
        refused(TOY, MissingError, *words)
        assert not any(r.host == "cdn" for r in hub.take_requests())

    def write(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(transfer, "_append", write)
        refused(TOY, MissingError, *words)
    assert fetch([TOY])[0].folder.is_dir()


def test_a_mirror_stands_for_the_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = fetch([TOY])[0]
    with serve_hub() as mirror:
        mirror.publish(REPO, FILES, hub.commits[REPO])
        point_to(monkeypatch, mirror.hub, tmp_path / "there")
        hub.take_requests()
        assert fetch([TOY])[0].card == mine.card
        assert mirror.take_requests() and not hub.take_requests()


def test_a_pin_is_asked_for_and_renewed_when_it_is_gone(hub: LoopbackHub) -> None:
    sha = "0" * 64
    pinned = plain_card(hub=REPO, revision="a" * 40, pinned_by="x", files={"config.json": None, "model.safetensors": sha})
    refused(
        pinned, MissingError, f"has no revision {'a' * 40} any more", "`annofree models pull --renew toy` takes what it has"
    )
    local = renew(pinned)
    assert local.card.revision == hub.commits[REPO] and fetch([pinned]) == [local]
    assert local.card.files["model.safetensors"] != sha


def start_pull(hub: LoopbackHub, home: Path, *names: str) -> subprocess.Popen[str]:
    own = {"HF_ENDPOINT": hub.hub, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "NO_PROXY": "127.0.0.1"}
    call = "import sys; from annofree.apps.cli import main; sys.argv[0] = 'annofree'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", call, "models", "pull", *names],
        env={**os.environ, **own, "ANNOFREE_HOME": str(home / "annofree")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_pull_that_was_killed_goes_on(hub: LoopbackHub, tmp_path: Path) -> None:
    card = list_known_cards()["dino-vit-s-16"]
    hub.publish(card.hub, FILES)
    hub.faults["slow"] = 0.05
    with start_pull(hub, tmp_path, card.name) as killed:
        while not any(path.stat().st_size for path in tmp_path.rglob("*.incomplete")) and killed.poll() is None:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    (kept,) = tmp_path.rglob("*.incomplete")
    held = kept.stat().st_size
    hub.faults.clear()
    hub.take_requests()
    with start_pull(hub, tmp_path, card.name) as again:
        out, err = again.communicate()
    assert again.returncode == 0, err
    assert re.fullmatch(rf"{card.name}: \S+/snapshots/{hub.commits[card.hub]}\n", out)
    assert f"fetching {card.name} model.safetensors (1 MB, on from " in err and len(err.splitlines()) == 1
    assert [r.start for r in hub.take_requests() if r.host == "cdn"] == [held]
