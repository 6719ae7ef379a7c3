"""NamedMask: on the paper world with a network that knows it, and what it says of names that it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from annofree.detectors.deeplab.network import DeepLab, DeepLabConfig
from annofree.detectors.deeplab.weights import save_namedmask
from annofree.errors import InputError, MissingError
from annofree.methods.build import load
from annofree.methods.namedmask import NamedMask, NamedMaskSettings, open_namedmask
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.structures import Image
from annofree.testing.conformance import CHECKS
from annofree.testing.fake_label_network import FakeLabelNetwork
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS

TINY = {"names": ("apple", "car"), "backbone": "clip-resnet", "layers": (1, 1, 1, 1), "width": 8, "channels": 8, "fine": 4}


def write_network(folder: Path, **changes: Any) -> DeepLab:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DeepLab(DeepLabConfig.of({**TINY, **changes})).eval()
    save_namedmask(network, folder)
    return network


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[SemanticSegmenter], None]) -> None:
    method = NamedMask(FakeLabelNetwork())
    assert isinstance(method, SemanticSegmenter) and isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("check", CHECKS[2:], ids=lambda check: check.__name__)
def test_instances_conform_where_touching_ones_need_not_be_told_apart(check: Callable[[Segmenter], None]) -> None:
    if check.__name__ not in ("check_absent_classes", "check_no_memory"):  # these look for every object of a scene
        check(NamedMask(FakeLabelNetwork()))


def test_what_is_not_asked_for_is_background_and_competes() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "two classes")
    found = NamedMask(FakeLabelNetwork()).semantic(scene.image, ["umbrella"])
    assert ((found.labels == 1) == scene.masks[1]).all() and found.names == ("background", "umbrella")


def test_a_word_of_the_class_may_be_the_networks() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "one")
    found = NamedMask(FakeLabelNetwork()).semantic(scene.image, ["fruit: pear | Apple"])
    assert ((found.labels == 1) == scene.masks[0]).all()


def test_other_names_are_told_and_found_nowhere() -> None:
    method = NamedMask(FakeLabelNetwork())
    assert method.remarks("apple, background") == []
    near, far = method.remarks(["appel", "zeppelin"])
    assert near == "the network was not trained on 'appel' and finds none; did you mean 'apple'?"
    assert far.endswith("it knows apple, car, tree, banana, umbrella, boat")
    assert (method.semantic(draw_paper_scenes()[0].image, ["zeppelin"]).labels == 0).all()


def test_instances_are_scored_by_their_mean_probability() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "one")
    found = NamedMask(FakeLabelNetwork()).instances(scene.image, NAMES)
    expected = float(torch.tensor([5.0, *[0.0] * len(NAMES)]).softmax(0)[0])
    assert found.scores.tolist() == pytest.approx([expected], abs=1e-6)


# networks


def test_logits_are_the_networks_on_normalized_pixels_of_any_size(tmp_path: Path) -> None:
    write_network(tmp_path, norm="batch")
    opened = open_namedmask(tmp_path)
    images = [
        Image(np.random.default_rng(i).integers(0, 256, (*s, 3), np.uint8)) for i, s in enumerate([(64, 96), (5, 40), (64, 96)])
    ]
    found = opened.predict_logits(images)
    assert [tuple(logits.shape) for logits in found] == [(3, 16, 24), (3, 8, 10), (3, 16, 24)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.tensor(images[2].pixels) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert torch.allclose(opened.network(pixels)[0], found[2], atol=1e-4)
    assert NamedMask(opened, NamedMaskSettings(side=128)).encode(images[:1])[0].logits.shape == (3, 32, 48)
    assert NamedMask(opened).semantic(images[0], "car").size == (64, 96)


def test_the_folder_is_the_method(tmp_path: Path) -> None:
    write_network(tmp_path)
    method = load(str(tmp_path), device="cpu")
    assert isinstance(method, NamedMask) and method.provenance["models"][0]["trained_on"] == ["apple", "car"]
    with pytest.raises(InputError, match=r"expected a trained NamedMask for the method namedmask, got none; train one with"):
        load("namedmask", models="tiny", device="cpu")


def test_folders_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"expected a folder with namedmask\.json at .*nothing; there is none, run"):
        open_namedmask(tmp_path / "nothing")
    write_network(tmp_path)
    text = (tmp_path / "namedmask.json").read_text()
    for other, message in (
        (text.replace('"apple"', '"apple", "pear"'), "have another shape at decoder.1.bias"),
        (text.replace('"stride": 8', '"stride": 7'), "expected a stride of 8, 16 or 32 px, got 7"),
        (text.replace('"fine"', '"fein"'), "unknown setting of the network 'fein'; did you mean 'fine'"),
        ("[1", "expected the configuration of a NamedMask network in"),
    ):
        (tmp_path / "namedmask.json").write_text(other)
        with pytest.raises(InputError, match=message) as refusal:
            open_namedmask(tmp_path)
        assert "\n" not in str(refusal.value)
