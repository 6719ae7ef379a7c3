"""The parts of presets and specs: what is loaded when, replaced by what, and asked for in vain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.models import empty_hub

from annofree.clues.objectness import InstanceObjectness
from annofree.errors import InputError, MissingError
from annofree.features.paired_clip import PairedClip
from annofree.features.saliency import FoundBackground, TokenCutMap
from annofree.hub.cards import Card
from annofree.hub.download import Local
from annofree.methods import components as models_module
from annofree.methods.build import build_method
from annofree.methods.components import Models, resolve_device
from annofree.methods.dense.clip_diy import OBJECTNESS
from annofree.methods.dense.reco_references import ReferenceArchive
from annofree.methods.detector import DetectorInfo
from annofree.methods.registry import METHODS, OBJECTNESS_ROLES
from annofree.retrieval.archive import Archive
from annofree.structures import Image, Vocabulary
from annofree.testing.fake_detector import FakeDetector
from annofree.testing.fake_label_network import FakeLabelNetwork
from annofree.testing.fake_text_supervised import FakeGroupVit, FakeTcl
from annofree.testing.fakes import FakeClip, FakeDino, FakeObjectness, FakeSam, FakeZutis
from annofree.testing.paper_world import NAMES, draw_paper_scenes

BARE = "tiny-clip+tiny-sam"
WHOLE = f"{BARE}+dino-vit-s-8+found"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty Hugging Face cache and store, and no network."""
    empty_hub(monkeypatch, tmp_path)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which models were fetched at once; nothing is read."""
    calls: list[list[str]] = []

    def fetch(cards: Sequence[Card], **_: Any) -> list[Local]:
        calls.append([card.name for card in cards])
        return [Local(card, Path("nowhere")) for card in cards]

    monkeypatch.setattr(models_module, "fetch", fetch)
    monkeypatch.setattr(models_module, "find_present", lambda card: Path("nowhere"))
    return calls


# Devices


def test_a_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == "cpu"
    for there, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto") == device
    with pytest.raises(InputError, match=r"expected a device such as auto, cpu or cuda, got 'gpu': ") as refusal:
        resolve_device("gpu")
    assert "\n" not in str(refusal.value)


# Parts


def test_nothing_is_read_before_it_is_asked_for(fetched: list[list[str]]) -> None:
    models = Models(WHOLE, "cpu")
    assert (models.preset.name, models.device, models.source) == (WHOLE, "cpu", "found")
    assert fetched == []


@pytest.mark.parametrize(
    ("spec", "roles", "names"),
    [(BARE, ["clip"], ["tiny-clip"]), ("fast", ["clip", "boundaries"], ["openai-vit-b-16", "openai-rn50"])],
)
def test_clips_are_loaded_once(
    fetched: list[list[str]], monkeypatch: pytest.MonkeyPatch, spec: str, roles: list[str], names: list[str]
) -> None:
    loaded: list[tuple[str, str]] = []

    def load(self: Models, role: str, local: Local) -> FakeClip:
        loaded.append((role, local.card.name))
        return FakeClip()

    monkeypatch.setattr(Models, "_clip", load)
    models = Models(spec, "cpu")
    assert models.clip is models.clip
    assert isinstance(models.clip, PairedClip) == (len(roles) == 2)
    assert loaded == list(zip(roles, names, strict=True))
    assert fetched == [names]


@pytest.mark.parametrize(
    ("roles", "names"),
    [
        (["clip"], ["tiny-clip"]),
        (["sam", "clip", "boundaries"], ["tiny-clip", "tiny-sam"]),
        (["clip", "dino", "saliency"], ["tiny-clip", "dino-vit-s-8", "found"]),
        ([], []),
    ],
)
def test_what_is_missing_of_some_roles_is_fetched_at_once(fetched: list[list[str]], roles: Any, names: list[str]) -> None:
    Models(WHOLE, "cpu").fetch(roles)
    assert fetched == [names]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_needs(fetched: list[list[str]], method: str) -> None:
    entry = METHODS[method]
    roles = {source: set(entry.list_roles(source)) for source in OBJECTNESS_ROLES}
    for source, own in roles.items():
        assert own == {*entry.needs, *(OBJECTNESS_ROLES[source] if entry.objectness else ())}
    detector = FakeDetector(), DetectorInfo(FakeDetector.names, {})
    models = Models(WHOLE, "cpu", objectness="none")
    parts: dict[str, Any] = {
        "clip": FakeClip(),
        "sam": FakeSam(),
        "zutis": FakeZutis(),
        "detector": detector,
        "dino": FakeDino(),
        "tcl": FakeTcl(),
        "groupvit": FakeGroupVit(),
        "objectness": FakeObjectness(),
        "namedmask": FakeLabelNetwork(),
        "archive": ReferenceArchive(Path(), Archive(("car",), {"car": ()}, {})),
    }
    given = {role: part for role, part in parts.items() if role != "dino" or "dino" in (*entry.needs, *entry.takes)}
    build_method(method, models.with_parts(**given))
    assert not any(fetched)  # with these at hand nothing else is needed


def test_replaced_parts_leave_the_original_as_it_is() -> None:
    models, clip, dino = Models(BARE, "cpu"), FakeClip(), FakeDino()
    other = models.with_parts(clip=clip, dino=dino)
    assert (other.clip, other.dino, other.preset) == (clip, dino, models.preset)
    assert "clip" not in vars(models) and "dino" not in vars(models)
    assert other.with_parts(sam=FakeSam()).clip is clip


# Objectness


def test_every_source_of_objectness_is_known_by_both_names() -> None:
    assert set(OBJECTNESS_ROLES) == set(OBJECTNESS)


def test_unknown_sources_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown objectness source 'fund'; did you mean 'found'"):
        Models(BARE, "cpu", objectness="fund")


def test_no_objectness_needs_nothing() -> None:
    assert Models(BARE, "cpu", objectness="none").objectness is None


@pytest.mark.parametrize(("source", "kind"), [("tokencut", TokenCutMap), ("found-bkg", FoundBackground)])
def test_sources_are_made_of_the_dino(source: str, kind: type) -> None:
    made = Models(BARE, "cpu", objectness=source).with_parts(dino=FakeDino()).objectness
    assert made is not None and isinstance(made, kind)
    assert "fake-dino" in str(made.provenance)


def test_a_source_asks_a_method_for_the_names() -> None:
    models = Models(BARE, "cpu", objectness="instances").with_parts(clip=FakeClip(), sam=FakeSam())
    with pytest.raises(MissingError, match="the objectness source 'instances' needs a segmenter"):
        _ = models.objectness
    made = models.with_parts(segmenter=build_method("zip", models), classes=Vocabulary.of(NAMES)).objectness
    assert isinstance(made, InstanceObjectness)
    scene = draw_paper_scenes()[0]
    (where,) = made.predict_maps([scene.image])
    assert torch.equal(where > 0, torch.from_numpy(scene.masks[0]))


def test_replaced_parts_make_another_objectness() -> None:
    models = Models(BARE, "cpu", objectness="tokencut").with_parts(dino=FakeDino())
    before = models.objectness
    assert models.objectness is before is models.with_parts(sam=FakeSam()).objectness
    assert isinstance(models.with_parts(source="found-bkg").objectness, FoundBackground)
    assert models.with_parts(dino=FakeDino()).objectness is not before
    given = FakeObjectness()
    assert models.with_parts(objectness=given).with_parts(clip=FakeClip()).objectness is given
    assert models.with_parts(objectness=given, dino=FakeDino()).objectness is given


@pytest.mark.parametrize(
    ("spec", "source", "what", "such_as"),
    [
        (BARE, "found", "a DINO and a saliency head", WHOLE),
        (BARE, "tokencut", "a DINO", f"{BARE}+dino-vit-s-8"),
        (f"{BARE}+dino-vit-s-8", "found", "a saliency head", WHOLE),
    ],
)
def test_models_without_a_part_are_refused_with_those_that_have_it(
    fetched: list[list[str]], spec: str, source: str, what: str, such_as: str
) -> None:
    with pytest.raises(InputError) as refusal:
        _ = Models(spec, "cpu", objectness=source).objectness
    other = "; or choose another objectness, such as instances or none"
    assert str(refusal.value) == f"expected models with {what}, such as {such_as}, got {spec}{other}"
    assert fetched == []
    assert Models(such_as, "cpu").preset.dino == "dino-vit-s-8"  # what is proposed is a spec


def test_a_preset_is_proposed_as_its_models() -> None:
    models = Models("tiny", "cpu", objectness="tokencut")
    bare = models.with_parts(preset=replace(models.preset, dino=None, saliency=None, zutis=None, detector=None))
    with pytest.raises(
        InputError, match=r"expected models with a DINO, such as tiny-clip\+tiny-sam\+dino-vit-s-8, got tiny; or"
    ):
        _ = bare.objectness


def test_weights_that_are_not_here_are_named_all_at_once() -> None:
    with pytest.raises(MissingError, match=r"^not on this machine: sam-b .*, dino-vit-s-8 ") as refusal:
        Models("tiny-clip+sam-b+dino-vit-s-8", "cpu").fetch(("clip", "boundaries", "sam", "dino"))
    assert "\n" not in str(refusal.value)


def test_a_head_that_is_on_no_hub_is_named_before_anything_is_fetched() -> None:
    models, why = Models(WHOLE, "cpu"), r"^the objectness needs found, which is on no hub: .*--objectness found-bkg"
    with pytest.raises(MissingError, match=why):
        _ = models.objectness
    with pytest.raises(MissingError, match=why):
        models.fetch(("clip", "dino", "saliency"))


def test_the_tower_computes_in_the_precision_asked_for() -> None:
    exact, half = Models("tiny", "cpu").clip, Models("tiny", "cpu", precision="bfloat16").clip
    image = [Image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))]
    assert half.provenance["dtype"] == "bfloat16" and exact.provenance["dtype"] == "float32"
    assert 0.99 < float((exact.encode_image(image) * half.encode_image(image)).sum()) < 1 - 1e-6


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="unknown precision 'bf16'; did you mean"):
        Models("tiny", "cpu", precision="bf16")
