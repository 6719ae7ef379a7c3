"""Names to methods, and the front door of the package."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import annofree
from annofree.errors import InputError
from annofree.fragments.clusters import Seeding
from annofree.methods import catalogue
from annofree.methods.catalogue import METHODS, MODELS, VARIANTS, build, changed, load, load_models
from annofree.methods.sam_clip import SamClip
from annofree.methods.zip import Zip, ZipSettings
from annofree.protocols import Segmenter
from annofree.testing.fakes import FakeClip, FakeSam


def made(method: str, variant: str = "default", changes: Any = None) -> Segmenter:
    return build(method, FakeClip(), FakeSam(), variant, changes)


@pytest.mark.parametrize("method", METHODS)
def test_every_variant_of_every_method_can_be_built(method: str) -> None:
    for variant in VARIANTS[method]:
        built = made(method, variant)
        assert isinstance(built, Segmenter)
        assert built.provenance["method"] == method


def test_a_preset_is_loaded_ready_to_use() -> None:
    method = load("sam_clip", models="tiny", variant="crops", device="cpu")
    assert isinstance(method, SamClip)
    assert method.settings == VARIANTS["sam_clip"]["crops"]
    assert [model["name"] for model in method.provenance["models"]] == ["tiny-clip", "tiny-sam"]
    assert all(len(sha) == 64 for model in method.provenance["models"] for sha in model["sha256"].values())
    assert set(MODELS) == {"tiny"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "zipp"}, r"unknown method 'zipp'; did you mean 'zip'\? Known: sam_clip, zip$"),
        ({"method": "zip", "variant": "ofical"}, r"unknown variant of zip 'ofical'; did you mean 'official'\?"),
        (
            {"method": "sam_clip", "variant": "official"},
            r"unknown variant of sam_clip 'official'. Known: crops, default, paper",
        ),
        ({"models": "tinny"}, r"unknown models preset 'tinny'; did you mean 'tiny'\?"),
        ({"device": "gpu"}, r"expected a device such as auto, cpu or cuda, got 'gpu': "),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load(**given)
    assert "\n" not in str(refusal.value)


def test_build_refuses_what_load_refuses() -> None:
    with pytest.raises(InputError, match="unknown method 'sam'"):
        made("sam")
    with pytest.raises(InputError, match="unknown variant of zip 'papers'; did you mean 'paper'"):
        made("zip", "papers")
    with pytest.raises(InputError, match="unknown models preset"):
        load_models("huge")


# Settings


def test_settings_are_changed_by_name_nested_ones_too() -> None:
    before = ZipSettings(seeding=Seeding("random", clusters=7))
    after = changed(before, {"most": 5, "seeding": {"seed": 3}})
    assert after == ZipSettings(seeding=Seeding("random", clusters=7, seed=3), most=5)
    assert before == ZipSettings(seeding=Seeding("random", clusters=7))
    assert changed(before, {}) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "none"}, r"unknown setting 'prompt'; did you mean 'prompting'"),
        ({"seeding": {"cluster": 3}}, r"unknown setting 'cluster'; did you mean 'clusters'"),
    ],
)
def test_unknown_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made("zip", changes=changes)


def test_changes_apply_to_the_variant() -> None:
    method = made("zip", "official", {"min_area": 7, "seeding": {"init": "semantic"}})
    assert isinstance(method, Zip)
    assert (method.settings.min_area, method.settings.seeding.init, method.settings.selection) == (7, "semantic", "official")


# Methods of other packages


def offer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entry = EntryPoint(name, "annofree.methods.sam_clip:SamClip", "annofree.methods")
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [entry] if group == "annofree.methods" else [])


def test_a_method_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "theirs")
    method = made("theirs", "paper")
    assert isinstance(method, SamClip)
    assert method.settings == VARIANTS["sam_clip"]["paper"]
    with pytest.raises(InputError, match=r"did you mean 'theirs'\? Known: sam_clip, theirs, zip$"):
        made("their")
    with pytest.raises(InputError, match="expected no changed settings for theirs"):
        made("theirs", changes={"points": 3})
    assert "theirs" not in METHODS


def test_a_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "zip")
    with pytest.raises(InputError, match=r"the method 'zip' of annofree\.methods\.sam_clip:SamClip is taken already"):
        made("sam_clip")


# The package


def test_the_public_names() -> None:
    assert annofree.__all__ == [
        "AnnofreeError",
        "Detections",
        "Image",
        "ImageError",
        "InputError",
        "MissingError",
        "Vocabulary",
        "load",
        "read_image",
    ]
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
