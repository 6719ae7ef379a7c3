"""``annofree mask``, end to end with planted objectness and with a small SelfMask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from tests.support.commands import invoker
from tests.support.models import empty_hub

from annofree.apps.cli.commands.mask import mask
from annofree.errors import InputError, MissingError
from annofree.features.selfmask import save_selfmask
from annofree.features.selfmask_network import SelfMaskConfig, SelfMaskNetwork
from annofree.retrieval.archive import Archive, Member, read_masks
from annofree.testing.fakes import FakeObjectness
from annofree.testing.paper_world import BACKGROUND

run = invoker(mask)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of two names and four images."""
    folder = tmp_path / "archive"
    folder.mkdir()
    ids = [f"{seed}.png" for seed in range(4)]
    for seed, name in enumerate(ids):
        pixels = np.full((40, 56, 3), BACKGROUND, np.uint8)
        pixels[8:20, 4 + seed : 24] = 200, 30, 30
        PIL.Image.fromarray(pixels).save(folder / name)
    members = {"cup": tuple(Member(i, 0.5) for i in ids[:3]), "tie/car": (Member(ids[3], 0.4),), "none": ()}
    Archive(("cup", "tie/car", "none"), members, {i: str(folder / i) for i in ids}, {}).write(folder)
    return folder


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annofree.pipelines.mask_archive._source", lambda *_: FakeObjectness())


@pytest.mark.usefixtures("planted")
def test_masks_and_sheets_are_written(archive: Path) -> None:
    said = run(archive, "--by", "found", "--json", "--batch-size", 2)
    assert said.exit_code == 0, said.output
    summary = json.loads(said.stdout)
    assert summary["masks"] == 4 and summary["known"] == 0 and summary["failed"] == {}
    assert list(read_masks(archive)) == ["0.png", "1.png", "2.png", "3.png"]
    about = json.loads((archive / "masks-about.json").read_text())
    assert about.items() >= {"by": "found", "refine": "none", "model": FakeObjectness().provenance}.items()
    sheets = sorted(p.name for p in (archive / "sheets").iterdir())
    assert sheets == ["masks-cup.jpg", "masks-none.jpg", "masks-tie--car.jpg"]
    with PIL.Image.open(archive / "sheets" / "masks-cup.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert (pixels[..., 2] - pixels[..., 0] > 60).any(), "the thing, which is red, is seen on it in the blue of the first name"


@pytest.mark.usefixtures("planted")
def test_the_same_command_goes_on_and_other_settings_are_refused(archive: Path) -> None:
    assert run(archive, "--by", "found", "--quiet", "--sheet", 0).exit_code == 0
    whole = (archive / "masks.jsonl").read_bytes()
    (archive / "masks.jsonl").write_bytes(whole[: len(whole) // 2])  # a kill in the middle of a line
    said = run(archive, "--by", "found", "--sheet", 0)
    assert said.exit_code == 0 and "4 masks of 4 images (1 were there); " in said.stdout and not (archive / "sheets").exists()
    assert (archive / "masks.jsonl").read_bytes() == whole
    other = run(archive, "--by", "found", "--refine", "pamr")
    assert isinstance(other.exception, InputError) and "made otherwise" in str(other.exception)


@pytest.mark.usefixtures("planted")
def test_a_corrupt_picture_is_named_and_the_exit_code_says_so(archive: Path) -> None:
    (archive / "1.png").write_bytes(b"no image")
    said = run(archive, "--by", "found")
    assert said.exit_code == 1 and "failed: " in said.stderr and "1.png" in said.stderr
    assert list(read_masks(archive)) == ["0.png", "2.png", "3.png"]


def test_a_trained_selfmask_is_taken_from_its_folder(archive: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    save_selfmask(SelfMaskNetwork(SelfMaskConfig(model_args=arguments, layers=2, heads=2, ffn=32)), tmp_path / "model")
    said = run(archive, "--weights", tmp_path / "model", "--side", 32, "--refine", "pamr", "--device", "cpu")
    assert said.exit_code == 0, said.output
    about = json.loads((archive / "masks-about.json").read_text())
    assert about["model"]["side"] == 32 and about["refine"] == "pamr"
    assert all(0 <= m.quality <= 1 and m.rle["size"] == [40, 56] for m in read_masks(archive).values())


@pytest.mark.parametrize(("given", "by"), [([], "found-bkg"), (["--weights", "model"], "selfmask")])
def test_by_default_it_asks_for_what_can_be_had(
    archive: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], by: str
) -> None:
    asked: list[str] = []

    def plant(by: str, *_: object) -> FakeObjectness:
        asked.append(by)
        return FakeObjectness()

    monkeypatch.setattr("annofree.pipelines.mask_archive._source", plant)
    assert run(archive, *given).exit_code == 0
    assert asked == [by] and json.loads((archive / "masks-about.json").read_text())["by"] == by


def test_without_network_the_default_names_a_dino_that_a_hub_has(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hub(monkeypatch, archive)
    missing = run(archive)
    assert isinstance(missing.exception, MissingError) and "annofree models pull" in str(missing.exception)
    assert "dino-vit-s-8" in str(missing.exception) and "on no hub" not in str(missing.exception)


def test_what_cannot_be_had_is_said(archive: Path, tmp_path: Path) -> None:
    released = run(archive, "--by", "selfmask")
    assert isinstance(released.exception, MissingError) and "selfmask-nq20" in str(released.exception)
    for wrong in (["--side", 64], ["--weights", tmp_path]):
        found = run(archive, "--by", "found-bkg", *wrong)
        assert isinstance(found.exception, InputError) and "--by selfmask only" in str(found.exception)
    assert isinstance(run(tmp_path).exception, InputError)
