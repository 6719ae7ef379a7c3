"""``annofree train`` and ``annofree finetune``: what they are told, and what they print."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.support import detector_training, zutis_training
from tests.support.cli import Cli
from tests.support.drawing import drawing

from annofree.apps.cli.commands.finetune import finetune
from annofree.apps.cli.commands.pseudo_label import pseudo_label
from annofree.apps.cli.train_commands.selfmask import selfmask
from annofree.detectors.checkpoint import load_detector
from annofree.features.selfmask import load_selfmask
from annofree.hub.cards import Card
from annofree.pipelines.training.train_selfmask import train_selfmask
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.pseudo_labels.rules import ByClass, LabelRules
from annofree.training.selfmask import train as selfmask_room
from annofree.training.tiny import clip_vit, found_head
from annofree.training.tiny.budget import Budget


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_detector_is_trained_and_tuned(cli: Cli, tmp_path: Path) -> None:
    detector_training.write_labels(tmp_path)
    (tmp_path / "recipe.toml").write_text(detector_training.TOML)
    asked = ("train", "detector", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--steps", 3)
    said = cli(*asked)
    assert said.code == 0, said.err
    assert "3 names, 6 images with 12 things; all weights are random" in said.err
    assert said.out.startswith(f"{tmp_path}/out/card.json: step 3, loss ")
    origin = json.loads((tmp_path / "out" / "training.json").read_text())["recipe"]
    assert (origin["steps"], origin["decay_at"], origin["warmup"]) == (3, [2], 1)
    quietly = cli(*asked, "--quiet")
    assert quietly.code == 0 and quietly.err == "" and quietly.out == said.out

    given = ("--labels", tmp_path / "labels.json", "--images", tmp_path / "pictures", "--out", tmp_path / "tuned")
    rest = ("--fraction", "0.4", "--steps", "2", "--batch", "2", "--agnostic", "--name", "tuned")
    said = cli("finetune", tmp_path / "out", *given, *rest)
    assert said.code == 0, said.err
    assert "1 names, 2 images with 4 things; out: it knew 3 names and is to learn 'object' alone" in said.err
    assert load_detector(tmp_path / "tuned").config.names == ("object",)
    assert Card.read(tmp_path / "tuned").name == "tuned"


def test_of_several_processes_the_first_one_speaks(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector_training.write_labels(tmp_path)
    (tmp_path / "recipe.toml").write_text(detector_training.TOML)
    monkeypatch.setenv("RANK", "1")
    said = cli("train", "detector", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--steps", 1)
    assert said == (0, "", "")


def test_zutis_is_trained(cli: Cli, tmp_path: Path) -> None:
    zutis_training.write_clip(tmp_path / "clip")
    zutis_training.write_archive(tmp_path / "archive")
    (tmp_path / "recipe.toml").write_text(zutis_training.TOML)
    asked = ("train", "zutis", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--steps", "2")
    said = cli(*asked)
    assert said.code == 0, said.err
    assert "3 names, 9 images; 0 without a mask take no part" in said.err
    assert said.out.startswith(f"{tmp_path}/out/card.json: step 2, loss ")
    assert Card.read(tmp_path / "out").figures["training steps"] == 2
    quietly = cli(*asked, "--quiet")
    assert quietly.code == 0 and quietly.err == "" and "card.json" in quietly.out


def test_namedmask_is_trained(cli: Cli, tmp_path: Path) -> None:
    zutis_training.write_archive(tmp_path / "archive")
    network = 'backbone = "clip-resnet"\nlayers = [1, 1, 1, 1]\nwidth = 8\nchannels = 8\nfine = 4'
    (tmp_path / "recipe.toml").write_text(f"batch = 2\n[scenes]\ncrop = 32\n[network]\n{network}\n")
    asked = ("train", "namedmask", "--config", tmp_path / "recipe.toml", "--steps", "2")
    said = cli(*asked, "--archive", tmp_path / "archive")
    assert said.code == 2 and "expected out in the recipe" in said.err
    said = cli(*asked, "--archive", tmp_path / "archive", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "3 names, 9 images; 0 without a mask take no part; all weights are random" in said.err
    assert said.out.startswith(f"{tmp_path}/out/card.json: step 2, loss ")
    assert Card.read(tmp_path / "out").figures["training steps"] == 2


SMALL = replace(
    selfmask_room.TINY,
    model_args={"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}, layers=2, heads=2, ffn=32, queries=4,
)  # fmt: skip


def test_selfmask_is_trained_on_a_folder_and_names_what_it_cannot_read(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfmask_room, "TINY", SMALL)
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 90, (40, 48, 3), np.uint8)
        pixels[10:30, 8 + seed : 28] = 220
        PIL.Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"no image")
    asked = ("--out", tmp_path / "out", "--images", tmp_path / "photos", "--sources", "colour", "--steps", 2, "--batch", 2)
    said = cli("train", "selfmask", *asked, "--side", 32, "--cells", 400)
    assert said.code == 1 and "failed: " in said.err and "torn.png" in said.err
    assert "masks: 4 of 4" in said.err and "steps: 2 of 2" in said.err
    held = Card.read(tmp_path / "out")
    assert held.name == "own-selfmask" and held.world == "photographs" and held.licence == "unknown"
    assert load_selfmask(tmp_path / "out").config.queries == 20


@pytest.mark.parametrize("wrong", ["", "--images x --world emoji", "--world coco", "--world emoji --from-dino"])
def test_selfmask_refuses_what_goes_not_together(cli: Cli, tmp_path: Path, wrong: str) -> None:
    said = cli("train", "selfmask", "--out", tmp_path / "out", *wrong.split())
    assert said.code == 2 and said.err.startswith("annofree: expected ") and not (tmp_path / "out").exists()


@drawing
def test_selfmask_draws_votes_trains_and_is_evaluated(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfmask_room, "TINY", SMALL)
    asked = ("--world", "emoji", "--count", 3, "--sources", "colour", "--steps", 2, "--batch", 2, "--side", 32, "--exam", 2)
    said = cli("train", "selfmask", "--out", tmp_path, *asked)
    assert said.code == 0, said.err
    rules = ("selfmask", "selfmask, best query", "voted", "tokencut, random weights", "found-bkg, random weights", "everything")
    expected = {f"{split} IoU, {rule}" for split in ("single", "mixed") for rule in rules}
    figures = Card.read(tmp_path).figures
    assert expected <= set(figures) and all(0 <= figures[name] <= 1 for name in expected)
    assert all(figures[f"{s} IoU, selfmask, best query"] >= figures[f"{s} IoU, selfmask"] for s in ("single", "mixed"))
    assert len((tmp_path / "voted" / "masks.jsonl").read_text().splitlines()) == 3
    again = cli("train", "selfmask", "--out", tmp_path, *asked)
    assert again.code == 0 and Card.read(tmp_path).figures == figures


def test_a_tiny_model_is_told_what_the_command_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fit(out: Path, budget: Budget, **others: Any) -> dict[str, float]:
        asked.update(out=out, budget=budget, **others)
        others["say"]("step 1 of 2")
        return {"zero-shot top-1": 0.5}

    monkeypatch.setattr(clip_vit, "fit_tiny_clip_vit", fit)
    said = cli("train", "tiny-clip-vit", "--out", tmp_path, "--minutes", "0.5", "--pool", "40", "--seed", "3")
    assert said == (0, f"{tmp_path}/card.json (emoji world, unseen scenes): zero-shot top-1 0.5\n", "note: step 1 of 2\n")
    assert asked["out"] == tmp_path and asked["seed"] == 3 and asked["pool_size"] == 40 and asked["device"] == "cpu"
    assert asked["budget"] == replace(clip_vit.BUDGET, minutes=0.5)
    monkeypatch.setattr(found_head, "fit_found", fit)
    said = cli("train", "found", "--out", tmp_path, "--dino", "a-dino", "--samples", "8", "--no-control", "--quiet")
    assert said.code == 0 and said.err == ""
    assert asked["budget"] == replace(found_head.BUDGET, samples=8)
    assert (asked["dino"], asked["control"], asked["refine"]) == (Path("a-dino"), False, "pamr")


def defaults(call: Any) -> dict[str, Any]:
    """The parameters of a function that have a default, with it."""
    found = {name: p.default for name, p in inspect.signature(call).parameters.items()}
    return {name: default for name, default in found.items() if default is not inspect.Parameter.empty}


def test_commands_have_the_defaults_of_what_they_set() -> None:
    recipe = {f.name: f.default for f in fields(DetectorRecipe)}
    options = defaults(finetune)
    for name in ("images", "fraction", "split_seed", "agnostic", "batch", "seed", "bf16", "workers", "sample_every", "name"):
        assert options[name] == recipe[name], name
    rules = {f.name: f.default for f in fields(LabelRules)}
    options = defaults(pseudo_label)
    for name, option in {**{name: name for name in rules if name not in ("min_score", "keep")}, "earlier": "merge_iou"}.items():
        assert options[option] == rules[name], name
    assert rules["min_score"] == ByClass.of(options["min_score"], 0.0) and rules["keep"] == ByClass.of(options["keep"], 1.0)
    python = defaults(train_selfmask)
    assert {k: v for k, v in defaults(selfmask).items() if k not in ("sources", "quiet")} == {
        k: v for k, v in python.items() if k not in ("sources", "callbacks")
    }
    assert defaults(selfmask)["sources"] == ",".join(python["sources"])
