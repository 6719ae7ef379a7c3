"""Fetching, checking, keeping and carrying weights; the hub is a folder, and nothing leaves this machine."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.numpy import load_file, save
from tests.support.models import plain_card

from annofree.errors import AnnofreeError, InputError, MissingError
from annofree.hub import download as hub_module
from annofree.hub import seen as seen_module
from annofree.hub import store as store_module
from annofree.hub.bundles import add_bundle, is_bundle, write_bundle
from annofree.hub.cards import Card, hash_file, list_known_cards
from annofree.hub.download import fetch, find, find_present, renew
from annofree.hub.store import Seen, add_folder, find_card, find_home, find_stored, list_broken_cards, list_cards
from annofree.testing.hub_cache import write_snapshot

FIRST, SECOND = "1" * 40, "2" * 40
MIT = {"tier": "S2", "licence": "MIT", "code_licence": "MIT", "files": {"config.json": None, "model.safetensors": None}}
TOY = plain_card(kind="sam", family="transformers SamModel", hub="makers/toy", revision="main", size=1_000_000, **MIT)
Online = dict[str, dict[str, bytes]]


def files(value: float) -> dict[str, bytes]:
    return {"config.json": b'{"v": 1}', "model.safetensors": save({"w": np.full(8, value, np.float32)})}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hugging Face cache, an empty store, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")  # whatever HF_ENDPOINT is
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "https://huggingface.co/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Online:
    """A hub: revision to files; ``main`` is the last of them.  Files arrive one by one, as they do."""
    revisions: Online = {}

    def download(repo: str, name: str, *, revision: str, **_: Any) -> str:
        assert repo == "makers/toy"
        commit = list(revisions)[-1] if revision == "main" else revision
        folder = write_snapshot(cache, repo, commit, {name: revisions[commit][name]})
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub_module, "find_commit", lambda *_, **__: list(revisions)[-1])
    return revisions


def failing(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise problem

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", download)


def answer(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co/makers/toy")
    return kind("a page\nof words", response=httpx2.Response(status, request=request))


def refused(call: Callable[[], Any], kind: type[AnnofreeError], *words: str) -> None:
    with pytest.raises(kind) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


# What is here


def test_a_model_in_the_cache_is_used_without_network(cache: Path) -> None:
    assert find(TOY) is None
    snapshot = write_snapshot(cache, TOY.hub, FIRST, files(1))
    local = find(TOY)
    assert local is not None and local.folder == snapshot
    assert local.card.revision == FIRST and local.card.pinned
    assert local.card.files == {name: hash_file(snapshot / name) for name in TOY.files}
    assert local.card.to_provenance()["revision"] == FIRST
    assert fetch([TOY]) == [local]


def test_a_model_of_which_a_file_is_missing_is_not_here(cache: Path) -> None:
    write_snapshot(cache, TOY.hub, FIRST, {"config.json": b"{}"})
    assert find_present(TOY) is None and find(TOY) is None


def test_what_was_seen_is_written_down_and_not_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    first = find(TOY)
    monkeypatch.setattr(seen_module, "hash_file", lambda path: pytest.fail(f"{path} was read again"))
    assert find(TOY) == first
    seen = json.loads((find_home() / "seen" / "toy.json").read_text(encoding="utf-8"))
    assert (seen["hub"], seen["revision"], set(seen["files"])) == (TOY.hub, FIRST, set(TOY.files))


def test_a_branch_stays_the_commit_it_was(cache: Path) -> None:
    first = write_snapshot(cache, TOY.hub, FIRST, files(1))
    find(TOY)
    write_snapshot(cache, TOY.hub, SECOND, files(2))  # another program fetched what main means now
    local = find(TOY)
    assert local is not None and local.folder == first


def test_what_was_fetched_before_its_card_had_a_pin_stays_if_it_is_the_same(cache: Path) -> None:
    snapshot = write_snapshot(cache, TOY.hub, FIRST, files(1))
    find(TOY)
    pinned = replace(TOY, revision=SECOND, files={**TOY.files, "model.safetensors": hash_file(snapshot / "model.safetensors")})
    assert find_present(pinned) == snapshot
    assert find_present(replace(pinned, files={**TOY.files, "model.safetensors": "0" * 64})) is None
    write_snapshot(cache, TOY.hub, SECOND, files(1))
    assert find_present(pinned) == snapshot.parent / SECOND


@pytest.mark.parametrize(("content", "later"), [(b'{"v": 2}', 10**10), (b'{"v": 22}', 0)], ids=["another time", "another size"])
def test_a_changed_file_is_an_error(cache: Path, content: bytes, later: int) -> None:
    snapshot = write_snapshot(cache, TOY.hub, FIRST, files(1))
    find(TOY)
    stat = (snapshot / "config.json").stat()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_bytes(content)
    os.utime(snapshot / "config.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + later))  # within one tick of a clock both agree
    refused(lambda: find(TOY), InputError, "is not the file of its first fetch", "models pull --renew toy")


def test_verifying_reads_again_what_looks_unchanged(cache: Path) -> None:
    snapshot = write_snapshot(cache, TOY.hub, FIRST, files(1))
    find(TOY)
    blob = (snapshot / "config.json").resolve()
    stat = blob.stat()
    blob.write_bytes(b'{"v": 3}')
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find(TOY) is not None
    refused(lambda: find(TOY, again=True), InputError, "config.json of toy is damaged", "taken out of the cache")
    assert find_present(TOY) is None


def test_a_file_that_is_not_the_cards(cache: Path) -> None:
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    strict = replace(TOY, files={"config.json": "0" * 64, "model.safetensors": None})
    refused(lambda: find(strict), InputError, "is not the file of its card", "expected SHA-256 000000000000")


def test_a_damaged_download_is_taken_out_of_the_cache(cache: Path, online: Online) -> None:
    snapshot = write_snapshot(cache, TOY.hub, FIRST, files(1))
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-4])
    refused(lambda: find(TOY), InputError, "model.safetensors of toy is damaged", "annofree models pull toy")
    assert not blob.exists() and find_present(TOY) is None
    online[FIRST] = files(1)
    assert fetch([TOY])[0].folder == snapshot


def test_what_is_no_safetensors_is_refused(cache: Path) -> None:
    write_snapshot(cache, TOY.hub, FIRST, files(1) | {"model.safetensors": b"<html>not found</html>"})
    refused(lambda: find(TOY), InputError, "model.safetensors of toy is damaged")


def test_a_record_that_cannot_be_read(cache: Path) -> None:
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    (find_home() / "seen").mkdir(parents=True)
    (find_home() / "seen" / "toy.json").write_text("{", encoding="utf-8")
    refused(lambda: find(TOY), InputError, "should hold what toy was at its first fetch")


# Fetching


def test_only_the_files_of_the_card_are_fetched(cache: Path, online: Online) -> None:
    online[FIRST] = files(1) | {"pytorch_model.bin": b"run me"}
    (local,) = fetch([TOY])
    assert sorted(p.name for p in local.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert local.card.revision == FIRST


def test_a_branch_that_moves_in_a_download_does_not_mix(monkeypatch: pytest.MonkeyPatch, cache: Path, online: Online) -> None:
    online[FIRST] = files(1)
    download = huggingface_hub.hf_hub_download

    def moving(repo: str, name: str, **more: Any) -> str:
        path: str = download(repo, name, **more)
        online.setdefault(SECOND, files(2))
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moving)
    (local,) = fetch([TOY])
    assert local.card.revision == FIRST
    assert load_file(local.folder / "model.safetensors")["w"].tolist() == [1.0] * 8


def test_after_the_first_fetch_the_same_commit_is_fetched(cache: Path, online: Online) -> None:
    online[FIRST] = files(1)
    first = fetch([TOY])[0]
    online[SECOND] = files(2)
    for name in TOY.files:
        (first.folder / name).unlink()
    assert fetch([TOY])[0] == first


def test_a_commit_whose_files_changed_is_an_error(cache: Path, online: Online) -> None:
    online[FIRST] = files(1)
    first = fetch([TOY])[0]
    for name in TOY.files:
        (first.folder / name).unlink()
    online[FIRST] = files(3)
    refused(lambda: fetch([TOY]), InputError, "model.safetensors is not the file of its first fetch")


def test_renewing_trusts_what_the_hub_has_now(cache: Path, online: Online) -> None:
    online[FIRST] = files(1)
    fetch([TOY])
    online[SECOND] = files(2)
    assert renew(TOY).card.revision == SECOND
    assert fetch([TOY])[0].card.revision == SECOND


def test_what_is_missing_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [list_known_cards()[name] for name in ("openai-rn50", "sam-b", "tiny-clip")]
    failing(monkeypatch, errors.LocalEntryNotFoundError("nothing\nhere"))
    words = ["openai-rn50 (about 408 MB), sam-b (about 375 MB), and HF_HUB_OFFLINE is set", "annofree models pull fast with"]
    words[1] = "`annofree models pull fast` with network"
    words += ["`annofree models bundle --out FILE fast`", "`annofree models add --from FILE`", "; or else"]
    refused(lambda: fetch(cards, spec="fast", hint="or else"), MissingError, *words)
    refused(lambda: fetch(cards), MissingError, "`annofree models pull openai-rn50 sam-b` with network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refused(lambda: fetch(cards), MissingError, "and https://huggingface.co cannot be reached")


def test_without_network_it_is_asked_once_and_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unplugged(url: str, **_: Any) -> None:
        asked.append(url)
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    failing(monkeypatch, AssertionError("the download was tried"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unplugged)
    refused(lambda: fetch([TOY]), MissingError, "and https://huggingface.co cannot be reached")
    assert asked == ["https://huggingface.co/makers/toy/resolve/main/config.json"]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (errors.OfflineModeIsEnabled("off"), ["HF_HUB_OFFLINE is set"]),
        (answer(errors.GatedRepoError, 403), ["terms to be accepted", "https://huggingface.co/makers/toy", "HF_TOKEN"]),
        (answer(errors.RepositoryNotFoundError, 401), ["the hub shows no https://huggingface.co/makers/toy", "HF_TOKEN"]),
        (answer(errors.RevisionNotFoundError, 404), ["no revision main any more", "models pull --renew toy"]),
        (answer(errors.RemoteEntryNotFoundError, 404), ["lacks one of the files", "config.json, model.safetensors"]),
        (answer(errors.HfHubHTTPError, 503), ["answered 503, it is down or busy", "toy (about 1 MB)"]),
        (httpx2.ReadTimeout("slow"), ["broke off (ReadTimeout)"]),
        (ConnectionResetError("gone"), ["broke off (ConnectionResetError)"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["no room for toy (about 1 MB)", "left; free some, or set HF_HOME"]),
        (PermissionError(errno.EACCES, "Permission denied"), ["cannot keep toy in", "Permission denied", "HF_HOME"]),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, Exception) else "",
)
def test_what_can_go_wrong_in_a_download(monkeypatch: pytest.MonkeyPatch, problem: Exception, words: list[str]) -> None:
    failing(monkeypatch, problem)
    refused(lambda: fetch([TOY]), MissingError, *words)
    assert find_present(TOY) is None and Seen.of("toy") == Seen()


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError("ours"))
    with pytest.raises(RuntimeError, match="ours"):
        fetch([TOY])


def test_the_true_client_offline(cache: Path) -> None:
    refused(lambda: fetch([TOY]), MissingError, "toy (about 1 MB), and HF_HUB_OFFLINE is set")
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    refused(lambda: renew(TOY), MissingError, "cannot renew toy: HF_HUB_OFFLINE is set")
    assert fetch([TOY])[0].card.revision == FIRST


def test_a_model_on_no_hub() -> None:
    refused(
        lambda: fetch([list_known_cards()["found"]]),
        MissingError,
        "on no hub",
        "annofree models add --from decoder_weights.pt --name found",
    )


def test_the_bundled_models_are_always_here() -> None:
    local = fetch([list_known_cards()["tiny-clip"]])[0]
    assert local.card == replace(list_known_cards()["tiny-clip"], files=local.card.files)
    assert local.card.code_licence == "Apache-2.0" and not (find_home() / "seen").exists()


# The store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with its card, as somebody made it."""
    place = tmp_path / "mine"
    place.mkdir()
    for name, content in files(5).items():
        (place / name).write_bytes(content)
    replace(TOY, name="mine", hub="", files={n: hash_file(place / n) for n in TOY.files}).write(place)
    return place


def test_a_folder_with_a_card_is_added_whole(folder: Path) -> None:
    card = add_folder(folder)
    place = find_stored("mine")
    assert place is not None and sorted(p.name for p in place.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert list_cards()["mine"] == card == find_card("mine")
    local = find(card)
    assert local is not None and local.folder == place
    assert add_folder(folder) == card  # twice is once


def test_another_model_of_the_same_name_is_refused(folder: Path) -> None:
    add_folder(folder)
    (folder / "config.json").write_bytes(b"{}")
    replace(Card.parse(folder / "card.json"), files={n: hash_file(folder / n) for n in TOY.files}).write(folder)
    refused(lambda: add_folder(folder), InputError, "expected the files of mine that", "config.json is another")


def test_a_stored_file_that_changes_is_an_error(folder: Path) -> None:
    card = add_folder(folder)
    (find_home() / "models" / "mine" / "config.json").write_bytes(b"{}")
    refused(lambda: find(card), InputError, "is not the file of its card")


def test_a_known_model_is_added_by_name_and_keeps_its_terms(folder: Path) -> None:
    (folder / "card.json").unlink()
    card = add_folder(folder, "sam-b")
    known = list_known_cards()["sam-b"]
    assert (card.licence, card.tier, card.hub) == (known.licence, known.tier, known.hub)
    assert card.files["model.safetensors"] == hash_file(folder / "model.safetensors")
    assert find(list_known_cards()["sam-b"]) is not None


def test_a_card_cannot_give_a_known_model_other_terms(folder: Path) -> None:
    replace(Card.parse(folder / "card.json"), name="selfmask-nq20", tier="S0", licence="MIT").write(folder)
    refused(lambda: add_folder(folder, "sam-b"), InputError, "its card says selfmask-nq20")
    assert add_folder(folder).licence == "unknown"


def test_what_cannot_be_added(folder: Path, tmp_path: Path) -> None:
    refused(lambda: add_folder(tmp_path / "nowhere"), InputError, "which is none of these")
    refused(lambda: add_folder(folder / "config.json"), InputError, "which is none of these")
    replace(Card.parse(folder / "card.json"), name="tiny-clip").write(folder)
    refused(lambda: add_folder(folder), InputError, "comes with annofree")
    (folder / "card.json").unlink()
    refused(lambda: add_folder(folder), InputError, "--name NAME")
    refused(lambda: add_folder(folder, "sam-bb"), InputError, "unknown model 'sam-bb'; did you mean 'sam-b'")
    refused(lambda: add_folder(folder, "openai-rn50"), MissingError, "needs open_clip_config.json, open_clip_model.safetensors")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(lambda: add_folder(folder, "sam-b"), MissingError, "pytorch_model.bin may run code when loaded and is not taken")
    assert list_cards() == list_known_cards()


def test_a_full_disk_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    refused(lambda: add_folder(folder), InputError, "cannot keep mine in", "No space left on device; nothing was left there")
    assert list((find_home() / "models").iterdir()) == []


def test_a_published_pickle_of_tensors_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "found"
    place.mkdir()
    weight, bias = torch.randn(1, 6, 1, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    torch.save({"decoder": {"weight": weight, "bias": bias}}, place / "decoder_weights.pt")
    refused(lambda: add_folder(place, "found"), InputError, "is not the published file: expected SHA-256 47ff2a4af3db")
    published = {"decoder_weights.pt": hash_file(place / "decoder_weights.pt")}
    card = replace(list_known_cards()["found"], published=published)
    monkeypatch.setattr(store_module, "list_known_cards", lambda: {**list_known_cards(), "found": card})
    add_folder(place, "found")
    kept = load_file(find_home() / "models" / "found" / "model.safetensors")
    assert np.array_equal(kept["weight"], weight.numpy()) and kept["bias"].tolist() == [0.5]


def test_where_annofree_keeps_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANNOFREE_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_home() == tmp_path / "annofree"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_home() == Path.home() / ".cache" / "annofree"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert find_home() == Path.home() / "Library" / "Caches" / "annofree"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert find_home() == tmp_path / "annofree"


def test_a_home_that_cannot_be_written_to_does_not_stop_a_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    (tmp_path / "file").touch()
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "file" / "home"))
    assert find(TOY) is not None


# Bundles


@pytest.fixture
def bundle(cache: Path, folder: Path, tmp_path: Path) -> Path:
    """Two models in one file: one from the cache and one from the store."""
    write_snapshot(cache, TOY.hub, FIRST, files(1))
    path = tmp_path / "out" / "models.tar"
    write_bundle(fetch([TOY, add_folder(folder)]), path)
    return path


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


def test_a_bundle_carries_models_to_another_machine(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere(monkeypatch, tmp_path)
    assert is_bundle(bundle) and find(TOY) is None
    assert [card.name for card in add_bundle(bundle)] == ["mine", "toy"]
    local = find(TOY)
    assert local is not None and local.card.revision == FIRST
    assert load_file(local.folder / "model.safetensors")["w"].tolist() == [1.0] * 8
    assert [p.name for p in find_home().iterdir() if p.name.startswith(".")] == []


def test_the_same_models_make_the_same_bytes(bundle: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    write_bundle(list(reversed(fetch([TOY, add_folder(folder)]))), again)
    assert again.read_bytes() == bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in tar} == {(0, 0, "", 0o644)}


def test_a_bundle_needs_a_file_to_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: write_bundle([], tmp_path), InputError, "expected a file to write the bundle to")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    local = fetch([list_known_cards()["tiny-sam"]])
    refused(lambda: write_bundle(local, tmp_path / "a.tar"), InputError, "No space left on device; nothing was left there")
    assert list(tmp_path.glob("*.tar")) == list(tmp_path.glob(".a-*")) == []


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"/etc/passwd": b"x"}, "holds '/etc/passwd'"),
        ({"../toy/card.json": b"x"}, "holds '../toy/card.json'"),
        ({"toy/../../card.json": b"x"}, "holds 'toy/../../card.json'"),
        ({"toy/deep/card.json": b"x"}, "holds 'toy/deep/card.json'"),
        ({"card.json": b"x"}, "holds 'card.json'"),
        ({".hidden/card.json": b"x"}, "holds '.hidden/card.json'"),
        ({"toy/card.json": link("toy/card.json", "/etc/passwd", tarfile.SYMTYPE)}, "holds 'toy/card.json'"),
        ({"toy/card.json": link("toy/card.json", "/etc/passwd", tarfile.LNKTYPE)}, "holds 'toy/card.json'"),
        ({"toy/null": link("toy/null", "", tarfile.CHRTYPE)}, "holds 'toy/null'"),
        ({}, "holds nothing"),
        ({"toy/card.json": b"{}"}, "expected a model's card"),
        ({"toy/model.safetensors": b"x"}, "expected a model folder with card.json"),
    ],
)
def test_strange_bundles_are_refused(members: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "strange.tar", members)
    refused(lambda: add_bundle(path), AnnofreeError, words)
    assert not (find_home() / "models").exists() and not list(find_home().iterdir())


def test_damaged_bundles_add_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere(monkeypatch, tmp_path)
    whole = bundle.read_bytes()
    at = whole.rindex(files(1)["model.safetensors"][-32:])  # of toy, whose files come after those of mine
    (tmp_path / "flipped.tar").write_bytes(whole[:at] + b"\1" + whole[at + 1 :])
    (tmp_path / "short.tar").write_bytes(whole[: at + 8])
    (tmp_path / "text.tar").write_text("not a tar", encoding="utf-8")
    refused(lambda: add_bundle(tmp_path / "flipped.tar"), InputError, "is not the file of its card")
    refused(lambda: add_bundle(tmp_path / "short.tar"), InputError, "damaged or none")
    refused(lambda: add_bundle(tmp_path / "text.tar"), InputError, "damaged or none")
    assert list_cards() == list_known_cards()


def test_what_belongs_to_no_model_in_a_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere(monkeypatch, tmp_path)
    with tarfile.open(bundle) as tar:
        held = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    refused(
        lambda: add_bundle(tar_of(tmp_path / "a.tar", held | {"toy/run.py": b"x"})),
        InputError,
        "toy/run.py belongs to no model",
    )
    moved = {name.replace("toy/", "other/"): content for name, content in held.items()}
    refused(lambda: add_bundle(tar_of(tmp_path / "b.tar", moved)), InputError, "other/card.json belongs to no model")
    with tarfile.open(bundle, "a") as tar:
        info = tarfile.TarInfo("toy/config.json")
        tar.addfile(info, io.BytesIO(b""))
    refused(lambda: add_bundle(bundle), InputError, "toy/config.json is there twice")


def test_progress_can_be_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = import_module("huggingface_hub.utils.tqdm")  # a class of that name hides it
    monkeypatch.setattr(bars, "HF_HUB_DISABLE_PROGRESS_BARS", None)  # whatever the environment says
    monkeypatch.setattr(bars, "progress_bar_states", {})
    assert not bars.are_progress_bars_disabled()
    hub_module.silence()
    assert bars.are_progress_bars_disabled()


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 3}', '{"name": "mine", "size": "large"}', "[" * 100_000])
def test_a_broken_card_is_named_and_the_others_are_listed(folder: Path, content: str) -> None:
    add_folder(folder)
    place = find_stored("mine")
    assert place is not None
    (place / "card.json").write_text(content)
    assert list_cards() == list_known_cards()
    (told,) = list_broken_cards().values()
    assert "card.json" in told and "add the model again" in told and len(told.splitlines()) == 1
    with pytest.raises(InputError, match=r"card\.json"):
        find_card("mine")
