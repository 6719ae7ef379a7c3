"""Detectors in files: there and back strictly, other weights, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import CONFIG, WEIGHTS, load_detector, read_config, read_state, save_detector, transfer
from annofree.detectors.config import DetectorConfig
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError, MissingError
from annofree.testing.tolerances import assert_close

Make = Callable[..., DetectorConfig]


@pytest.mark.parametrize("kind", ["cascade", "mask_rcnn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_there_and_back(
    tiny: Make, scene: tuple[Tensor, DetectionTargets], tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    network = build_network(tiny(kind, norm="batch", score_floor=0.0)).eval()
    save_detector(network, tmp_path / "made", dtype)
    again = load_detector(tmp_path / "made")
    assert again.config == network.config and not again.training and not any(p.requires_grad for p in again.parameters())
    for name, value in network.state_dict().items():
        kept = value.to(dtype).float() if value.ndim > 1 else value
        assert torch.equal(again.state_dict()[name], kept), name
    ours, theirs = again.detect([scene[0]])[0], network.detect([scene[0]])[0]
    if dtype is torch.float32:
        assert torch.equal(ours.scores, theirs.scores)
    assert_close(ours.scores[:5], theirs.scores[:5], dtype=dtype, depth="network")


def test_great_variances_outlive_half_precision(tiny: Make, tmp_path: Path) -> None:
    network = build_network(tiny(norm="batch"))
    network.backbone.body.bn1.running_var.fill_(1e9)  # type: ignore[union-attr, operator]
    save_detector(network, tmp_path)
    assert load_detector(tmp_path).backbone.body.bn1.running_var.min() == 1e9  # type: ignore[union-attr, operator]


def test_files_that_do_not_fit_are_refused(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="train one first"):
        load_detector(tmp_path)
    save_detector(build_network(tiny()), tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    for other, said in (
        ({k: v for k, v in state.items() if k != "mask.predictor.conv5_mask.bias"}, "lack mask.predictor.conv5_mask.bias"),
        ({**state, "more": torch.zeros(1)}, "also hold more"),
        ({**state, "stages.0.score.bias": torch.zeros(9)}, "another shape at stages.0.score.bias"),
    ):
        save_file(other, tmp_path / WEIGHTS)
        with pytest.raises(InputError, match=said):
            load_detector(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="expected safetensors"):
        load_detector(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(MissingError, match="expected weights at"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "configuration of a detector"),
        ("[]", "configuration of a detector"),
        ('{"kind": "cascade", "name": 1}', "unknown setting"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(InputError, match=said):
        read_config(tmp_path)


def test_state_dicts_are_found_in_other_files(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.ones(2)}
    for name, held in (
        ("a.pth", state),
        ("b.pt", {"state_dict": state, "epoch": 3}),
        ("c.pth", {"student": {}, "teacher": state}),
    ):
        torch.save(held, tmp_path / name)
        assert read_state(tmp_path / name)["conv1.weight"].tolist() == [1, 1]
    for name, other in (("d.pth", {"epoch": 3}), ("e.pth", [1])):
        torch.save(other, tmp_path / name)
        with pytest.raises(InputError, match="got something else"):
            read_state(tmp_path / name)
    torch.save(Path("code"), tmp_path / "f.pth")
    with pytest.raises(InputError, match="tensors alone"):
        read_state(tmp_path / "f.pth")


def test_another_detectors_weights_go_on_but_for_its_names(tiny: Make) -> None:
    source, network = build_network(tiny(names=("object",))), build_network(tiny())
    taken = transfer(network, source.state_dict())
    assert {name.rsplit(".", 1)[0] for name in taken.fresh} == {
        *(f"stages.{i}.score" for i in range(3)),
        "mask.predictor.mask_fcn_logits",
    }
    assert torch.equal(network.state_dict()["stages.1.move.weight"], source.state_dict()["stages.1.move.weight"])
    assert set(taken.left_out) == set(taken.fresh)
    with pytest.raises(InputError, match="same backbone"):
        transfer(build_network(tiny(width=32)), source.state_dict())


def test_the_configuration_is_plain_json(tiny: Make, tmp_path: Path) -> None:
    save_detector(build_network(tiny()), tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["names"] == ["disc", "bar"]
