"""``annofree models`` as people meet it, and the page of models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save
from tests.support.cli import Cli, Said
from tests.support.models import empty_hub

from annofree.hub.cards import BUNDLED, list_known_cards
from annofree.hub.models_page import render_models_page
from annofree.hub.presets import DEFAULT, list_presets
from annofree.methods.build import MethodSpec
from annofree.methods.zip import Zip
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.hub_cache import write_snapshot

ROOT = Path(__file__).parents[2]
TINY = ["tiny-clip", "tiny-sam", "tiny-dino", "tiny-found", "tiny-zutis", "tiny-detector"]  # by role
FILES = {"config.json": b'{"model_type": "sam"}', "model.safetensors": save({"w": np.ones(4, np.float32)})}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that holds sam-l, an empty store, and no network."""
    return write_snapshot(empty_hub(monkeypatch, tmp_path), list_known_cards()["sam-l"].hub, "c" * 40, FILES)


def assert_refused(said: Said, *words: str) -> None:
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("annofree: ") and said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_list_shows_every_model_and_preset(cli: Cli) -> None:
    said = cli("models", "list")
    assert (said.code, said.err) == (0, "")
    for name, card in list_known_cards().items():
        (line,) = (line for line in said.out.splitlines() if f"│ {name} " in line)
        assert card.kind in line and card.tier in line and card.licence in line
        assert line.split("│")[-2].strip() == ("yes" if name in (*BUNDLED, "sam-l") else "no")
    assert "preset fast: openai-vit-b-16 + openai-rn50 + sam2.1-tiny" in said.out


def test_list_as_json(cli: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("models", "list", "--json").out)}
    assert set(rows) == set(list_known_cards())
    assert rows["sam-l"] == {
        "name": "sam-l",
        "kind": "sam",
        "tier": "S2",
        "licence": "Apache-2.0",
        "code_licence": "Apache-2.0",
        "size": 1249372352,
        "gate": "none",
        "present": True,
    }
    assert rows["dinov3-vit-s-16"]["gate"] == "none"  # its licence asks for much, but nothing on the hub


def test_show(cli: Cli) -> None:
    said = cli("models", "show", "openai-rn50x64")
    assert "hub: timm/resnet50x64_clip.openai" in said.out and "tier: S1: image-text pairs" in said.out
    assert "pinned: not pinned" in said.out and "model.safetensors (no hash before the first fetch)" in said.out
    assert cli("models", "pull", "sam-l").code == 0
    details = json.loads(cli("models", "show", "sam-l", "--json").out)
    assert details["pinned"] == f"{'c' * 40} (since its first fetch)" and len(details["files"]["config.json"]) == 64
    paper = cli("models", "show", "paper").out
    assert paper.startswith(f"paper: {list_presets()['paper'].about}\n") and "name: sam-b" in paper
    assert [m["name"] for m in json.loads(cli("models", "show", "tiny", "--json").out)["models"]] == TINY


def test_pull(cli: Cli, cache: Path) -> None:
    assert cli("models", "pull", "sam-l", "tiny") == Said(
        0, f"sam-l: {cache}\n" + "".join(f"{n}: {ROOT}/src/annofree/assets/{n}\n" for n in TINY), ""
    )
    assert_refused(cli("models", "pull", "sam-h"), "not on this machine: sam-h (about 2.6 GB), and HF_HUB_OFFLINE is set")
    assert_refused(cli("models", "pull", "--renew", "sam-l"), "cannot renew sam-l: HF_HUB_OFFLINE is set")
    assert_refused(cli("models", "pull", "sam_b"), "unknown model or preset 'sam_b'; did you mean 'sam-b'")


def test_verify(cli: Cli, cache: Path) -> None:
    said = cli("models", "verify")
    assert said.code == 0
    assert [line.split(":")[0] for line in said.out.splitlines()] == [*BUNDLED, "sam-l"]
    assert cli("models", "verify", "sam-h") == Said(1, "sam-h: not on this machine\n", "")
    (cache / "config.json").unlink()
    (cache / "config.json").write_bytes(b"{}")
    said = cli("models", "verify", "tiny-sam", "sam-l")
    assert said.code == 1 and "tiny-sam: as it should be" in said.out
    assert f"sam-l: {cache}/config.json is not the file of its first fetch" in said.out


def test_bundle_and_add(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "models.tar"
    said = cli("models", "bundle", "--out", out, "sam-l")
    assert said.code == 0 and "there: annofree models add --from models.tar" in said.out
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "elsewhere"))
    assert cli("models", "add", "--from", out) == Said(0, f"sam-l: {tmp_path}/elsewhere/models/sam-l\n", "")
    assert cli("models", "verify", "sam-l").code == 0
    assert json.loads(cli("models", "show", "sam-l", "--json").out)["revision"] == "c" * 40


def test_add_a_folder(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    assert_refused(cli("models", "add", "--from", folder), "--name NAME")
    assert cli("models", "add", "--from", folder, "--name", "sam-hq-l").out == f"sam-hq-l: {tmp_path}/home/models/sam-hq-l\n"
    assert_refused(cli("models", "add", "--from", tmp_path / "nowhere"), "which is none of these")
    out = tmp_path / "a.tar"
    cli("models", "bundle", "--out", out, "sam-hq-l")
    assert_refused(cli("models", "add", "--from", out, "--name", "sam-hq-l"), "expected --name with a folder or a file only")
    (tmp_path / "words.txt").write_text("words", encoding="utf-8")
    assert_refused(cli("models", "add", "--from", tmp_path / "words.txt"), "which is none of these")


# Segment


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def build(spec: MethodSpec, vocabulary: object) -> Zip:
        assert spec.precision == "float32"
        asked.append(spec.models)
        return Zip(FakeClip(), FakeSam(), spec.variant)

    monkeypatch.setattr(MethodSpec, "build", build)
    return asked


SEGMENT = ("segment", ROOT / "examples" / "scenes", "--classes", "dog", "--limit", 1, "--quiet")


def test_segment_takes_the_default_preset(cli: Cli, fakes: list[str], tmp_path: Path) -> None:
    assert cli(*SEGMENT, "--out", tmp_path / "out").code == 0
    assert fakes == [DEFAULT]


def test_without_weights_segment_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    said = cli(*SEGMENT, "--out", tmp_path / "out", "--device", "cpu")
    assert_refused(
        said, "openai-vit-b-16 (about 599 MB)", "annofree models pull fast", "--models tiny", "models add --from FILE"
    )
    assert not (tmp_path / "out").exists()


def test_the_ledger_refuses_before_anything_is_loaded(cli: Cli, fakes: list[str], tmp_path: Path) -> None:
    ledger = [*SEGMENT, "--out", tmp_path / "out"]
    assert_refused(cli(*ledger, "--max-tier", "S1"), "expected models of tier S1 at most, but sam2.1-tiny is S2")
    selfmask = ("--models", "open_clip:ViT-B-16/dfn2b+sam-b", "--license", "permissive")
    assert_refused(cli(*ledger, *selfmask), "expected licences permissive, but open_clip:ViT-B-16/dfn2b's weights are unknown")
    assert_refused(cli(*ledger, "--licence", "MIT"), "sam2.1-tiny's weights are Apache-2.0")
    assert_refused(cli(*ledger, "--max-tier", "S7"), "unknown tier 'S7'")
    assert fakes == []
    assert cli(*ledger, "--max-tier", "S2", "--license", "permissive", "--models", "paper").code == 0
    assert fakes == ["paper"]


# The page


def test_the_page_of_models_is_up_to_date(cli: Cli) -> None:
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert written == render_models_page() == cli("models", "list", "--markdown").out, (
        "annofree models list --markdown > docs/models.md"
    )
    for name in [*list_known_cards(), *list_presets()]:
        assert f"| `{name}` |" in written
