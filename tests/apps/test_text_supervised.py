"""``annofree segment --method tcl`` and ``groupvit`` with small random weights where a hub and people leave the real ones."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.support.cli import Cli, Said
from tests.support.models import empty_hub
from tests.support.text_supervised import fill_tcl, list_tcl_shapes, save_groupvit, write_small_clip

from annofree.formats.label_maps import ClassList, read_label_map
from annofree.hub import store
from annofree.hub.cards import list_known_cards
from annofree.testing.hub_cache import trust_files, write_snapshot

CLIP = "openai-vit-b-16+tiny-sam"
GROUPVIT = ("--method", "groupvit", "--models", "tiny")
TCL = ("--method", "tcl", "--models", CLIP)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hugging Face cache and store, and no network."""
    return empty_hub(monkeypatch, tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in {"wide.png": (40, 64, 3), "tall.png": (50, 30, 3)}.items():
        PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder


def publish(hub: Path, name: str, folder: Path, revision: str) -> None:
    """Put the files of a folder where the hub's client leaves those of a model."""
    card = list_known_cards()[name]
    files = {file: (folder / file).read_bytes() for file in card.files}
    trust_files(card, write_snapshot(hub, card.hub, revision, files))


@pytest.fixture
def groupvit(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "groupvit").mkdir()
    save_groupvit(tmp_path / "groupvit")
    publish(hub, "groupvit-gcc-redcaps", tmp_path / "groupvit", "a" * 40)


class Settings(dict[str, Any]):
    """What the settings of a training may be in a checkpoint: a class that is not there when it is read."""


@pytest.fixture
def checkpoint(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TCL's published file, of small random weights, with all else that a checkpoint has; and its CLIP from the hub."""
    (tmp_path / "clip").mkdir()
    write_small_clip(tmp_path / "clip")
    publish(hub, "openai-vit-b-16", tmp_path / "clip", list_known_cards()["openai-vit-b-16"].revision)
    card = replace(list_known_cards()["tcl"], parameters=sum(map(prod, list_tcl_shapes().values())))
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), "tcl": card})
    state = OrderedDict(fill_tcl()) | {"clip_text_encoder.positional_embedding": torch.zeros(77, 8)}
    held = {"model": state, "optimizer": {"state": {0: {"step": 3}}}, "step": 50000, "config": Settings(model={"type": "TCL"})}
    torch.save(held, tmp_path / "tcl.pth")
    return tmp_path / "tcl.pth"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_refused(said: Said, *words: str) -> None:
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("annofree: ") and said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def assert_maps(out: Path, names: tuple[str, ...]) -> None:
    classes = ClassList.read(out / "labels")
    for place, size in {"wide.png": (40, 64), "tall.png": (50, 30)}.items():
        found = read_label_map(out / "labels" / place, classes)
        assert (found.names, found.size) == (names, size)


def test_groupvit_by_a_command(cli: Cli, groupvit: None, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("segment", photos, "--classes", "dog, cat", "--task", "semantic,instance", *GROUPVIT, "--out", out)
    assert said.code == 0, said
    assert_maps(out, ("background", "dog", "cat"))
    provenance = read(out / "run.json")["provenance"]
    assert provenance["method"] == "groupvit" and provenance["models"][0]["licence"] == "LicenseRef-NVIDIA-NonCommercial"
    one = cli("segment", photos, "--classes", "dog", "--task", "semantic", *GROUPVIT, "--out", tmp_path / "one")
    assert one.code == 0, one
    assert_maps(tmp_path / "one", ("background", "dog"))


def test_groupvit_is_refused_where_licenses_have_to_be_permissive(cli: Cli, photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", "dog", "--task", "semantic", *GROUPVIT, "--out", tmp_path / "out")
    assert_refused(
        cli(*command, "--license", "permissive"),
        "expected licences permissive, but groupvit-gcc-redcaps's weights are LicenseRef-NVIDIA-NonCommercial and code is",
    )
    assert_refused(cli(*command, "--max-tier", "S0"), "but groupvit-gcc-redcaps is S1")
    assert not (tmp_path / "out").exists()


def test_groupvit_without_weights_says_where_they_are(cli: Cli, photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", "dog", "--task", "semantic", "--method", "groupvit", "--out", tmp_path / "out")
    for models in ("tiny", "fast"):
        assert_refused(
            cli(*command, "--models", models),
            "not on this machine: groupvit-gcc-redcaps (about 223 MB)",
            "`annofree models pull groupvit-gcc-redcaps`",
        )
    spec = "tiny-clip+tiny-sam+groupvit-gcc-yfcc"
    assert_refused(
        cli(*command, "--models", spec),
        "the method groupvit needs groupvit-gcc-yfcc, which is on no hub: take pytorch_model.bin from https://",
        "or take groupvit-gcc-redcaps, which is on a hub",
    )


def test_the_other_groupvit_is_added_from_its_file(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.text_supervised import build_groupvit_config

    from annofree.features.text_supervised import groupvit as module

    save_groupvit(tmp_path)
    from safetensors.torch import load_file

    state = load_file(tmp_path / "model.safetensors")
    count = sum(v.numel() for v in state.values() if v.is_floating_point())
    card = replace(list_known_cards()["groupvit-gcc-yfcc"], parameters=count)
    monkeypatch.setattr(store, "list_known_cards", lambda: {**list_known_cards(), card.name: card})
    monkeypatch.setattr(module, "_default_config", lambda folder: build_groupvit_config())
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # as older files have it
    torch.save(state, tmp_path / "pytorch_model.bin")
    said = cli("models", "add", "--from", tmp_path / "pytorch_model.bin", "--name", card.name)
    assert said.code == 0, said
    spec = ("--method", "groupvit", "--models", f"tiny-clip+tiny-sam+{card.name}", "--out", tmp_path / "out")
    said = cli("segment", photos, "--classes", "dog, cat", "--task", "semantic", *spec)
    assert said.code == 0, said
    assert read(tmp_path / "out" / "run.json")["provenance"]["models"][0]["name"] == card.name


def test_tcl_is_added_from_its_checkpoint_and_used(cli: Cli, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    command = ("segment", photos, "--classes", "dog, cat", "--task", "semantic,instance", *TCL, "--license", "permissive")
    assert_refused(
        cli(*command, "--out", tmp_path / "out"),
        "the method tcl needs tcl, which is on no hub: take tcl.pth from https://github.com/",
        "and add it with `annofree models add --from tcl.pth --name tcl`",
    )
    said = cli("models", "add", "--from", checkpoint)
    assert said.code == 0, said
    said = cli(*command, "--out", tmp_path / "out")
    assert said.code == 0, said
    assert_maps(tmp_path / "out", ("background", "dog", "cat"))
    models = read(tmp_path / "out" / "run.json")["provenance"]["models"]
    assert [model["name"] for model in models] == ["tcl", "openai-vit-b-16"] and models[1]["use"]["templates"] == "tcl"


def test_encodings_are_kept_and_asked_again(cli: Cli, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    cli("models", "add", "--from", checkpoint)
    out, rest = tmp_path / "out", ("--task", "semantic", *TCL, "--variant", "plain", "--policy", "all", "--keep-encodings")
    said = cli("segment", photos, "--classes", "dog, cat", *rest, "--out", out)
    assert said.code == 0, said
    said = cli("relabel", out, "--classes", "tree", "--out", tmp_path / "again")
    assert said.code == 0, said
    assert_maps(tmp_path / "again", ("background", "tree"))


def test_tcl_on_another_clip_is_refused(cli: Cli, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    cli("models", "add", "--from", checkpoint)
    command = ("segment", photos, "--classes", "dog", "--task", "semantic", "--method", "tcl", "--models", "tiny")
    assert_refused(
        cli(*command, "--out", tmp_path / "out"),
        "expected the CLIP that tcl was trained on, openai-vit-b-16, got tiny-clip; name models with it",
    )
