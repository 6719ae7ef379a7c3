"""Names to methods, and the front door of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from open_clip.model import CLIP
from safetensors.torch import save
from tests.support.models import empty_hub
from transformers import SamConfig, SamModel

import annofree
from annofree.errors import InputError, MissingError
from annofree.features.clip import Clip
from annofree.features.paired_clip import PairedClip
from annofree.fragments.clusters import Seeding
from annofree.hub.cards import list_known_cards
from annofree.hub.download import fetch
from annofree.hub.presets import Preset, Role, list_presets
from annofree.methods import components as models_module
from annofree.methods import registry
from annofree.methods.build import PROTOCOLS, build_method, change_settings, load
from annofree.methods.components import Models
from annofree.methods.dense.reco_references import ReferenceArchive
from annofree.methods.detector import DetectorInfo
from annofree.methods.registry import METHODS, Entry, find_method, resolve_method_name
from annofree.methods.sam_clip import VARIANTS as SAM_CLIP_VARIANTS
from annofree.methods.sam_clip import SamClip
from annofree.methods.zip import Zip, ZipSettings
from annofree.retrieval.archive import Archive
from annofree.structures import Image, Vocabulary
from annofree.testing.fake_detector import FakeDetector
from annofree.testing.fake_label_network import FakeLabelNetwork
from annofree.testing.fake_text_supervised import FakeGroupVit, FakeTcl
from annofree.testing.fakes import FakeClip, FakeDino, FakeObjectness, FakeSam, FakeZutis
from annofree.testing.hub_cache import trust_files, write_snapshot


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hugging Face cache and store, and no network."""
    return empty_hub(monkeypatch, tmp_path)


def put_there(hub: Path, name: str, revision: str, files: dict[str, bytes]) -> None:
    """Files in the place of a model's own, and meant to be."""
    card = list_known_cards()[name]
    trust_files(card, write_snapshot(hub, card.hub, revision, files))


def made(method: str, variant: str = "default", changes: Any = None) -> Any:
    models = Models("tiny", "cpu", objectness="none")
    detector = FakeDetector(), DetectorInfo(FakeDetector.names, {"name": "fake-detector"})
    fakes = {"clip": FakeClip(), "sam": FakeSam(), "zutis": FakeZutis(), "objectness": FakeObjectness(), "detector": detector}
    taught = {"tcl": FakeTcl(), "groupvit": FakeGroupVit()}
    archive = ReferenceArchive(Path(), Archive(("car",), {"car": ()}, {}))
    fakes |= (
        {"dino": FakeDino(), "archive": archive, "namedmask": FakeLabelNetwork()} if method in ("reco", "namedmask") else {}
    )
    return build_method(method, models.with_parts(**fakes, **taught), variant, changes)


@pytest.mark.parametrize("method", METHODS)
def test_every_variant_of_every_method_can_be_built(method: str) -> None:
    for variant in METHODS[method].variants:
        built = made(method, variant)
        assert [task for task, protocol in PROTOCOLS.items() if isinstance(built, protocol)] == list(METHODS[method].tasks)
        assert built.provenance["method"] == method


def test_a_preset_is_loaded_ready_to_use() -> None:
    method: Any = load("sam_clip", models="tiny", variant="crops", device="cpu")
    assert isinstance(method, SamClip)
    assert method.settings == SAM_CLIP_VARIANTS["crops"]
    assert [model["name"] for model in method.provenance["models"]] == ["tiny-clip", "tiny-sam"]
    assert all(len(sha) == 64 for model in method.provenance["models"] for sha in model["sha256"].values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "zipp"}, r"unknown method 'zipp'; did you mean 'zip'\? Known: clip_diy, .*, zip, zutis$"),
        ({"method": "zip", "variant": "ofical"}, r"unknown variant of zip 'ofical'; did you mean 'official'\?"),
        (
            {"method": "sam_clip", "variant": "officially"},
            r"unknown variant of sam_clip 'officially'; did you mean 'official'",
        ),
        ({"models": "tinny"}, r"unknown models preset 'tinny'; did you mean 'tiny'\?"),
        ({"device": "gpu"}, r"expected a device such as auto, cpu or cuda, got 'gpu': "),
        ({"models": "tiny", "settings": {"prompt": "none"}}, r"unknown setting 'prompt'; did you mean 'prompting'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load(**given)
    assert "\n" not in str(refusal.value)


def test_build_refuses_what_load_refuses() -> None:
    with pytest.raises(InputError, match="unknown method 'sam'"):
        made("sam")
    with pytest.raises(InputError, match="unknown variant of zip 'papers'; did you mean 'paper'"):
        made("zip", "papers")
    with pytest.raises(InputError, match="unknown models preset"):
        Models("huge")


# Models from the hub's cache, of random weights

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "openai-rn50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "openai-vit-b-16": {"image_size": 64, "layers": 8, "width": 32, "head_width": 16, "patch_size": 16},
}
SAM = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 16,
        "num_pos_feats": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 8},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}


@pytest.fixture
def fetched(hub: Path) -> Path:
    """The parts of ``openai-rn50+openai-vit-b-16+sam-b`` as the hub's client would leave them."""
    torch.manual_seed(0)
    for name, tower in TOWERS.items():
        settings = {"embed_dim": 32, "vision_cfg": tower, "text_cfg": TEXT, "quick_gelu": True}
        config = {"model_cfg": settings, "preprocess_cfg": list_known_cards()[name].preprocessing}
        weights = save({k: v.contiguous() for k, v in CLIP(**settings).state_dict().items()})
        files = {"open_clip_config.json": json.dumps(config).encode(), "open_clip_model.safetensors": weights}
        put_there(hub, name, "a" * 40, files)
    config = SamConfig(**SAM)
    state = {
        k: v.contiguous()
        for k, v in SamModel(config).state_dict().items()
        if k != "shared_image_embedding.positional_embedding"
    }
    files = {"config.json": config.to_json_string().encode(), "model.safetensors": save(state, {"format": "pt"})}
    put_there(hub, "sam-b", "b" * 40, files)
    vit: dict[str, Any] = {
        "architecture": "vit_small_patch8_224",
        "model_args": {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32},
    }
    state = timm.create_model(vit["architecture"], num_classes=0, **vit["model_args"]).state_dict()
    files = {"config.json": json.dumps(vit).encode(), "model.safetensors": save(state, {"format": "pt"})}
    put_there(hub, "dino-vit-s-8", "c" * 40, files)
    return hub


def test_two_clips_and_a_sam_make_a_method(fetched: Path) -> None:
    spec = "openai-rn50+openai-vit-b-16+sam-b"
    method = load("zip", models=spec, device="cpu", variant="paper")
    assert isinstance(method, Zip) and isinstance(method.clip, PairedClip)
    clip, sam = method.provenance["models"]
    assert (clip["name"], clip["boundaries"]["name"], sam["name"]) == ("openai-vit-b-16", "openai-rn50", "sam-b")
    for part in (clip, clip["boundaries"], sam):
        card = list_known_cards()[part["name"]]
        assert (part["hub"], part["licence"], part["code_licence"], part["tier"]) == (
            card.hub,
            card.licence,
            card.code_licence,
            card.tier,
        )
        assert part["revision"] == ("b" if part is sam else "a") * 40
        assert set(part["sha256"]) == set(card.files) and all(len(sha) == 64 for sha in part["sha256"].values())
    assert clip["use"]["dense_side"] == 512 and clip["boundaries"]["use"]["boundary_side"] == 1024


def test_they_look_and_draw_together(fetched: Path) -> None:
    models = Models("openai-rn50+openai-vit-b-16+sam-b", "cpu")
    clip, sam = models.clip, models.sam
    image = Image(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    (cells,), (edges,) = clip.encode_dense([image]), clip.encode_boundaries([image])
    assert cells.values.shape[0] == clip.dimension == len(clip.encode_null_text())
    assert edges.values.shape[-2:] == (64, 96)  # 1024 px at a stride of 16
    assert clip.encode_text(Vocabulary.of("dog, cat")).shape == (2, clip.dimension)
    (embedding,) = sam.embed([image])
    assert sam.predict_masks(embedding, boxes=np.array([[5, 5, 30, 30]], np.float32)).masks.shape == (1, 1, 40, 60)


def test_a_preset_sets_its_parts(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Preset(
        "small",
        "openai-vit-b-16",
        "sam-b",
        "openai-rn50",
        use={"clip": {"dense_side": 64}, "boundaries": {"boundary_side": 32}},
    )
    monkeypatch.setattr(models_module, "find_preset", lambda spec: preset)
    clip = Models("small", "cpu").clip
    assert clip.provenance["use"]["dense_side"] == 64
    assert clip.encode_boundaries([Image(np.zeros((32, 48, 3), np.uint8))])[0].values.shape[-2:] == (2, 3)


def test_what_presets_set_is_known_to_the_models(fetched: Path) -> None:
    places = {name: fetch([list_known_cards()[name]])[0].folder for name in TOWERS}
    for preset in list_presets().values():
        for role, use in preset.use.items():
            card = preset.find_cards()[cast(Role, role)]
            tower = "openai-rn50" if card.family.endswith("ModifiedResNet") else "openai-vit-b-16"
            settings = Clip(places[tower], card=card, use=use).settings
            assert {**settings, **use} == settings
    for card in list_known_cards().values():
        if card.kind == "clip" and card.hub:
            tower = "openai-rn50" if card.family.endswith("ModifiedResNet") else "openai-vit-b-16"
            assert Clip(places[tower], card=card).provenance["name"] == card.name


def test_a_dino_of_a_spec(fetched: Path) -> None:
    dino = Models("tiny-clip+tiny-sam+dino-vit-s-8", "cpu").dino
    assert (dino.provenance["name"], dino.provenance["revision"], dino.patch) == ("dino-vit-s-8", "c" * 40, 8)


def test_the_default_is_missed_in_one_line() -> None:
    with pytest.raises(MissingError, match=r"^not on this machine: openai-vit-b-16 .*`annofree models pull fast`") as refusal:
        load("zip", device="cpu")
    assert "for the emoji scenes --models tiny is bundled" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(MissingError, match="`annofree models pull paper`") as refusal:
        load("zip", models="paper", device="cpu")
    assert "tiny" not in str(refusal.value)


def test_a_preset_without_a_dino() -> None:
    with pytest.raises(
        InputError, match=r"expected models with a DINO, such as tiny-clip\+tiny-sam\+dino-vit-s-8, got tiny-clip"
    ):
        _ = Models("tiny-clip+tiny-sam").dino
    with pytest.raises(MissingError, match="not on this machine: dino-vit-s-8 "):
        _ = Models("tiny-clip+tiny-sam+dino-vit-s-8", "cpu").dino


# Settings


def test_settings_are_changed_by_name_nested_ones_too() -> None:
    before = ZipSettings(seeding=Seeding("random", clusters=7))
    after = change_settings(before, {"most": 5, "seeding": {"seed": 3}})
    assert after == ZipSettings(seeding=Seeding("random", clusters=7, seed=3), most=5)
    assert before == ZipSettings(seeding=Seeding("random", clusters=7))
    assert change_settings(before, {}) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "none"}, r"unknown setting 'prompt'; did you mean 'prompting'"),
        ({"score": "joined"}, r"unknown value of score 'joined'; did you mean 'joint'"),
        ({"seeding": {"init": "linspaced"}}, r"unknown value of init 'linspaced'; did you mean 'linspace'"),
        ({"seeding": {"cluster": 3}}, r"unknown setting 'cluster'; did you mean 'clusters'"),
        ({"within": float("nan")}, "expected within of the settings as a number, got nan"),
    ],
)
def test_unknown_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made("zip", changes=changes)


def test_changes_apply_to_the_variant() -> None:
    method = made("zip", "official", {"min_area": 7, "seeding": {"init": "semantic"}})
    assert isinstance(method, Zip)
    assert (method.settings.min_area, method.settings.seeding.init, method.settings.selection) == (7, "semantic", "official")


def test_settings_are_changed_as_a_method_is_loaded() -> None:
    method: Any = load("sam_clip", models="tiny", variant="crops", device="cpu", settings={"most": 7})
    assert method.settings == replace(SAM_CLIP_VARIANTS["crops"], most=7) != SAM_CLIP_VARIANTS["crops"]


# Methods of other packages


def theirs(models: Models, settings: Any) -> SamClip:
    """What another package may offer: a function of models and settings."""
    return SamClip(models.clip, models.sam, settings)


def offer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entry = EntryPoint(name, "tests.methods.test_registry:theirs", "annofree.methods")
    monkeypatch.setattr(EntryPoint, "load", lambda self: theirs)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "annofree.methods" else [])


def test_a_method_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "theirs")
    method = made("theirs", "paper")
    assert isinstance(method, SamClip)
    assert method.settings == SAM_CLIP_VARIANTS["paper"]
    with pytest.raises(InputError, match=r"did you mean 'theirs'\? Known: .*, theirs, zip, zutis$"):
        made("their")
    with pytest.raises(InputError, match="expected no changed settings for theirs"):
        made("theirs", changes={"points": 3})
    assert "theirs" not in METHODS


def test_a_method_of_another_package_waits_for_no_weights_that_only_a_person_can_fetch() -> None:
    cards = list_presets()["fast"].find_cards()
    assert all(cards[role].hub for role in Entry(theirs).needs) and not cards["zutis"].hub


def test_a_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "zip")
    with pytest.raises(InputError, match=r"the method 'zip' of .*:theirs is taken already"):
        made("sam_clip")


# The package


def test_the_public_names() -> None:
    for name in annofree.__all__:
        assert getattr(annofree, name).__name__ == name
    assert dir(annofree) == sorted([*annofree.__all__, "__version__"])
    assert annofree.load is load
    with pytest.raises(AttributeError, match="module 'annofree' has no attribute 'laod'"):
        _ = annofree.laod


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, annofree; print(sorted({'torch', 'numpy', 'PIL', 'open_clip', 'transformers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["clip-diy", "sam-clip", "clip-surgery", "patch-cosine"])
def test_words_of_a_name_may_be_joined_by_hyphens(name: str) -> None:
    joined = name.replace("-", "_")
    assert resolve_method_name(name) == resolve_method_name(joined) == joined
    assert find_method(name) is find_method(joined)
    with pytest.raises(InputError, match="unknown method 'clip-dyi'; did you mean 'clip_diy'"):
        find_method("clip-dyi")


def test_what_was_chosen_for_a_method_is_found_by_either_name() -> None:
    ours, theirs = (load(name, models="tiny", device="cpu").provenance for name in ("sam-clip", "sam_clip"))
    assert ours == theirs
