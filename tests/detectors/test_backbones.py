"""Backbones: their levels, their norms, and the weights they start from."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from annofree.detectors.backbones import Backbone, check_norm, load_backbone
from annofree.detectors.build import build_network
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError
from annofree.hub.cards import find_bundled
from annofree.testing.tolerances import assert_close

Make = Callable[..., DetectorConfig]


def clip_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_file(find_bundled("tiny-clip") / "open_clip_model.safetensors")
    return state


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "clip-resnet"])
def test_levels_have_their_strides(tiny: Make, backbone: str) -> None:
    with torch.device("meta"):
        made = Backbone(tiny(backbone=backbone))
        levels = made(torch.zeros(2, 3, 96, 64))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        **{str(i): (2, 16, 24 >> i, 16 >> i) for i in range(4)},
        "pool": (2, 16, 2, 1),
    }


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("frozen", FrozenBatchNorm2d), ("batch", nn.BatchNorm2d), ("sync", nn.SyncBatchNorm), ("group", nn.GroupNorm)],
)
def test_norms_are_the_chosen_ones(tiny: Make, norm: str, kind: type[nn.Module]) -> None:
    made = Backbone(tiny(norm=norm))
    norms = [m for m in made.modules() if isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d | nn.SyncBatchNorm | nn.GroupNorm)]
    assert {type(m) for m in norms} == {kind}
    # three of the stem, three and a shortcut in each of the four stages; the pyramid has its own unless they are frozen
    assert len(norms) == 3 + 4 * 4 + (0 if norm == "frozen" else 8)


def test_sync_is_batch_in_one_process(tiny: Make) -> None:
    made = {}
    for norm in ("sync", "batch"):
        torch.manual_seed(0)
        made[norm] = Backbone(tiny(norm=norm)).train()
    pixels = torch.rand(2, 3, 64, 64)
    assert_close(made["sync"](pixels)["1"], made["batch"](pixels)["1"], depth="network")


def test_sync_in_several_processes_needs_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    check_norm("sync", "cpu")
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    check_norm("sync", "cuda:0")
    check_norm("group", "cpu")
    with pytest.raises(InputError, match="norm = 'group' or 'frozen'"):
        check_norm("sync", "cpu")


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_it_starts_from_a_clip(tiny: Make, norm: str) -> None:
    network = build_network(tiny(layers=(2, 2, 2, 2), width=32, norm=norm))
    state = clip_state()
    taken = load_backbone(network, state)
    own = network.state_dict()
    for name in taken.loaded:
        assert torch.equal(own[name], state[name.replace("backbone.body.", "visual.")].float())
    assert {n for n in own if n.startswith("backbone.body.")} - set(taken.loaded) == set()
    assert "visual.attnpool.c_proj.weight" in taken.left_out and "text_projection" in taken.left_out
    assert ("visual.bn1.running_mean" in taken.left_out) == (norm == "group")
    assert "rpn.head.cls_logits.weight" in taken.fresh and not set(taken.fresh) & set(taken.loaded)
    assert len(taken.loaded) + len(taken.left_out) == len(state)
    assert str(taken).startswith(f"took {len(taken.loaded)} weights, left out") and "visual.attnpool" in str(taken)


def test_its_features_are_clips_own(tiny: Make) -> None:
    from annofree.features.clip_network import load_clip

    made = build_network(tiny(layers=(2, 2, 2, 2), width=32, norm="frozen")).eval()
    load_backbone(made, clip_state())
    visual = load_clip(find_bundled("tiny-clip")).model.visual.eval()
    pixels = torch.rand(1, 3, 64, 64)
    body = made.backbone.body  # type: ignore[union-attr]
    ours, theirs = (v.layer4(v.layer3(v.layer2(v.layer1(v.stem(pixels))))) for v in (body, visual))  # type: ignore[union-attr, operator]
    assert_close(ours, theirs, depth="network")


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """A ResNet-50 of torchvision, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: nn.Module = resnet50(weights=None).eval()
    return made


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_it_starts_from_a_resnet_50_by_torchvisions_or_dinos_names(tiny: Make, source: Any, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items() if prefix == "" or "fc." not in name}
    other = {"module.head.mlp.0.weight": torch.zeros(3, 3)} if prefix == "module.backbone." else {}
    network = build_network(tiny(backbone="resnet50", norm="frozen")).eval()
    taken = load_backbone(network, state | other)
    counted = {f"{prefix}{n}" for n in source.state_dict() if n.endswith("num_batches_tracked")}
    assert set(taken.left_out) == counted | set(other) | ({"fc.weight", "fc.bias"} if prefix == "" else set())
    x = source.maxpool(F.relu(source.bn1(source.conv1(pixels := torch.rand(1, 3, 32, 32)))))
    body = network.backbone.body  # type: ignore[union-attr]
    assert_close(body.layer1(body.stem(pixels)), source.layer1(x), depth="network")  # type: ignore[union-attr, operator]


def test_weights_that_do_not_fit_are_refused(tiny: Make) -> None:
    state = clip_state()
    for changes, said in (
        ({"layers": (2, 2, 3, 2), "width": 32}, r"lack layer3\.2"),
        ({"layers": (2, 2, 2, 2), "width": 64}, r"another shape at .*do backbone, layers and width fit"),
    ):
        with pytest.raises(InputError, match=said):
            load_backbone(build_network(tiny(**changes)), state)
    with pytest.raises(InputError, match=r"without conv1\.weight"):
        load_backbone(build_network(tiny()), {"text_projection": torch.zeros(2)})
