"""A trained detector as a method: what it tells of what it found, and which folder it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.detectors.base import DetectorNetwork
from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import save_detector
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError, MissingError
from annofree.hub.cards import Card, hash_file
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.components import Models
from annofree.methods.detector import VARIANTS, Detector, DetectorEncoding, DetectorInfo, DetectorSettings
from annofree.methods.registry import METHODS, find_method
from annofree.protocols import Segmenter
from annofree.structures import Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fake_detector import FakeDetector, PaperThings
from annofree.testing.paper_world import NAMES, draw_paper_scenes

ORIGIN = DetectorInfo(NAMES, {"name": "fake-detector", "tier": "S0"})


def load(method: str, **options: Any) -> Any:
    return MethodSpec(method, **options).build()


TINY: dict[str, Any] = {
    "kind": "cascade", "names": ["cat", "dog"], "backbone": "clip-resnet", "layers": [1, 1, 1, 1], "width": 8, "channels": 8,
    "fc": 8, "mask_convs": 1, "side": 64, "longest": 96, "norm": "group", "score_floor": 0.0, "detections": 5,
    "rpn_before": [50, 50], "rpn_after": [20, 20],
}  # fmt: skip


def made(settings: DetectorSettings | str = "default") -> Detector:
    return Detector(FakeDetector(), ORIGIN, settings)


# The paper world


@pytest.mark.parametrize("check", CHECKS)
def test_it_is_right_where_the_network_is(check: Callable[[Segmenter], None]) -> None:
    check(made())


def test_words_for_a_name_are_the_name() -> None:
    scene = draw_paper_scenes()[0]
    assert made().instances(scene.image, "fruit: Apple | pear, car").labels.tolist() == ["fruit"]
    both = made().instances(draw_paper_scenes()[2].image, Vocabulary.of("plant: tree | umbrella"))
    assert both.labels.tolist() == ["plant", "plant"]  # two names of the network are one of those asked for
    assert made().instances(scene.image, "car: banana, apple").labels.tolist() == ["apple"]


def test_a_word_of_two_names_is_the_first_ones() -> None:
    assert made().instances(draw_paper_scenes()[0].image, "red: apple, fruit: apple").labels.tolist() == ["red"]


def test_names_it_does_not_know_are_told_with_the_nearest() -> None:
    assert made().remarks(NAMES) == [] and made().remarks("fruit: apple") == []
    near, far = made().remarks("aple, zeppelin, car")
    assert near == "the detector was not trained on 'aple' and finds none; did you mean 'apple'?"
    assert far == "the detector was not trained on 'zeppelin' and finds none; it knows " + ", ".join(NAMES)
    many = Detector(FakeDetector(), DetectorInfo(tuple(f"thing {k}" for k in range(40)), {}))
    assert many.remarks("xyz")[0].endswith("thing 10, thing 11, ...")


class Crowd:
    """Two of one name, the second inside the first, and a third of another name on the first, all 10 px wide."""

    def detect(self, pixels: list[Tensor]) -> list[PaperThings]:
        masks = torch.zeros(3, 10, 10, dtype=torch.bool)
        masks[0], masks[1, :4], masks[2, :9] = True, True, True
        return [PaperThings(torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.5, 0.04]), masks) for _ in pixels]


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        (DetectorSettings(), [0.9, 0.5]),
        (DetectorSettings(min_score=0.0), [0.9, 0.5, 0.04]),
        (DetectorSettings(min_score=0.0, most=1), [0.9]),
        (DetectorSettings(min_score=0.0, within=0.3), [0.9, 0.04]),
        (DetectorSettings(min_score=0.0, inside=0.9), [0.9, 0.04]),
        (DetectorSettings(min_score=0.0, across=0.8), [0.9, 0.5]),
        (VARIANTS["apart"], [0.9]),
        (VARIANTS["all"], [0.9, 0.5, 0.04]),
    ],
)
def test_settings_choose_among_what_was_found(settings: DetectorSettings, scores: list[float]) -> None:
    method = Detector(Crowd(), DetectorInfo(("cat", "dog"), {}), settings)
    image = Image(np.zeros((10, 10, 3), np.uint8))
    assert np.allclose(method.instances(image, "cat, dog").scores, scores)
    assert method.encoding_key == made().encoding_key


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"min_score": 2.0}, {"most": 0}):
        with pytest.raises(InputError, match="expected min_score in 0"):
            DetectorSettings(**wrong)
    with pytest.raises(InputError, match="unknown variant of detector 'al'; did you mean 'all'"):
        Detector(Crowd(), ORIGIN, "al")


def test_one_that_tells_no_names_apart_answers_for_any_one_name() -> None:
    alone = Detector(FakeApple(), DetectorInfo(("object",), {}))
    image = draw_paper_scenes()[0].image
    assert alone.instances(image, "object").labels.tolist() == ["object"] and alone.remarks("object") == []
    assert alone.instances(image, "zeppelin").labels.tolist() == ["zeppelin"]
    assert alone.remarks("zeppelin") == ["the detector tells no names apart: whatever it finds is called 'zeppelin'"]
    for ask in (alone.remarks, lambda names: alone.instances(image, names)):
        with pytest.raises(InputError, match=r"expected one name, such as object, .* got 2; ask for one"):
            ask("cat, dog")


class FakeApple(FakeDetector):
    """Calls all that it finds 0."""

    def detect(self, pixels: list[Tensor]) -> list[PaperThings]:
        return [found._replace(labels=torch.zeros_like(found.labels)) for found in super().detect(pixels)]


def test_an_encoding_is_small_and_holds_all_that_was_found() -> None:
    (encoding,) = made().encode([draw_paper_scenes()[1].image])
    assert isinstance(encoding, DetectorEncoding)
    assert encoding.size == draw_paper_scenes()[1].image.size
    assert [NAMES[k] for k in encoding.labels] == ["car", "car"] and all(isinstance(c, str) for c in encoding.counts)
    assert made().instances(encoding, "apple").labels.tolist() == []


# Folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("detectors") / "mine"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_detector(build_network(DetectorConfig.of(TINY)), place)
    return place


def with_card(folder: Path, place: Path) -> Path:
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    files = {path.name: hash_file(path) for path in place.iterdir()}
    Card("my-detector", "Detector Cascade", "S1", "MIT", "cats", "emoji", files, kind="segmenter").write(place)
    return place


def test_a_folder_is_a_method(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = load(str(folder), device="cpu")
    assert isinstance(method, Detector) and isinstance(method, Segmenter) and isinstance(method.network, DetectorNetwork)
    image = Image(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    found = load(str(folder), device="cpu", variant="all").instances(image, "dog, cat")
    assert found.size == (50, 70) and set(found.labels) <= {"cat", "dog"} and len(found) > 0
    monkeypatch.chdir(folder.parent)
    for spelling in ("mine", "./mine"):
        assert load(spelling, device="cpu").origin.names == ("cat", "dog")


def test_a_folder_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    (model,) = load(str(folder), device="cpu").provenance["models"]
    assert model["name"] == "mine" and list(model["sha256"]) == ["model.safetensors"] and model["trained_on"] == ["cat", "dog"]
    carded = with_card(folder, tmp_path / "carded")
    (model,) = load(str(carded), device="cpu").provenance["models"]
    assert (model["name"], model["tier"], model["licence"]) == ("my-detector", "S1", "MIT")
    (carded / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="is not the file of its card"):
        load(str(carded), device="cpu")


def test_a_folder_has_a_card_for_the_ledger(folder: Path, tmp_path: Path) -> None:
    (unknown,) = find_method(str(folder)).cards
    assert (unknown.tier, unknown.licence) == ("S4", "unknown")
    (known,) = find_method(str(with_card(folder, tmp_path / "carded"))).cards
    assert (known.name, known.tier, known.licence) == ("my-detector", "S1", "MIT")


def test_folders_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (str(tmp_path), str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(InputError, match=r"expected a method's name, or a folder with detector\.json"):
            find_method(method)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zip").mkdir()
    assert find_method("zip") is METHODS["zip"]  # a name comes first
    with pytest.raises(InputError, match="unknown method 'detectr'; did you mean 'detector'"):
        find_method("detectr")


def test_a_folder_has_the_variants_of_detectors(folder: Path) -> None:
    with pytest.raises(InputError, match=r"unknown variant of .*mine 'offical'"):
        load(str(folder), variant="offical")
    assert load(str(folder), device="cpu", settings={"most": 3}).settings.most == 3


# By role


def test_a_preset_without_a_detector_says_what_to_do() -> None:
    bare = Models("openai-rn50+sam-b", "cpu")
    with pytest.raises(InputError, match=r"expected models with a trained detector, got openai-rn50\+sam-b, .*`annofree train"):
        build_method("detector", bare)


def test_the_detector_of_a_preset(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path / "home"))
    with_card(folder, tmp_path / "home-made")
    from annofree.hub.store import add_folder

    add_folder(tmp_path / "home-made", name="my-detector")
    method: Any = load("detector", models="tiny-clip+tiny-sam+my-detector", device="cpu")
    assert method.origin.names == ("cat", "dog") and method.provenance["models"][0]["name"] == "my-detector"
    with pytest.raises(InputError, match="a saliency head and a segmenter"):
        Models("tiny-clip+tiny-sam+my-detector+my-detector", "cpu")
    assert Models("tiny-clip+tiny-sam+my-detector+tiny-zutis", "cpu").preset.zutis == "tiny-zutis"


def test_a_missing_network_is_told(tmp_path: Path) -> None:
    from annofree.methods.detector import open_detector

    with pytest.raises(MissingError, match="expected a detector's folder"):
        open_detector(tmp_path)
