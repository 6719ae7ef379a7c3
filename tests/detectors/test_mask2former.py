"""Mask2Former beside transformers' whole model and a written-out loop; on empty, odd and padded images; learned, stored."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.alike import assert_same_detections
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from transformers import Mask2FormerForUniversalSegmentation, ResNetConfig

from annofree.detectors.backbones import load_backbone
from annofree.detectors.build import build_network
from annofree.detectors.checkpoint import load_detector, save_detector, transfer
from annofree.detectors.config import DetectorConfig
from annofree.detectors.mask2former import Mask2Former, build_transformers_config, select_best_queries
from annofree.detectors.preprocessing import normalize_image, pad_batch
from annofree.detectors.types import DetectionTargets, RawDetections
from annofree.errors import InputError
from annofree.ops.boxes import compute_tight_boxes
from annofree.structures import Detections
from annofree.testing.tolerances import assert_close

Make = Callable[..., DetectorConfig]
Scene = tuple[Tensor, DetectionTargets]
Empty = Callable[[tuple[int, int]], DetectionTargets]
SMALL: dict[str, Any] = {"channels": 32, "queries": 8, "pixel_layers": 1, "query_layers": 3, "heads": 4, "ffn": 64}


@pytest.fixture
def make(tiny: Make) -> Callable[..., Mask2Former]:
    """Makes a small network with weights that follow from a seed."""

    def made(**changes: Any) -> Mask2Former:
        torch.manual_seed(0)
        network = build_network(tiny("mask2former", **{**SMALL, **changes}))
        assert isinstance(network, Mask2Former)
        return network

    return made


Network = Callable[..., Mask2Former]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


# learning


def test_it_learns_a_scene(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make(channels=64, width=8).train(), scene
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    curve = []
    for _ in range(30):
        losses = network([pixels], [target])
        optimizer.zero_grad()
        total(losses).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        curve.append(float(total(losses).detach()))
    assert all(np.isfinite(curve)) and np.mean(curve[-3:]) < 0.2 * curve[0]
    found = network.eval().detect([pixels])[0]
    for i, mask in enumerate(target.masks):
        best = int(torch.where(found.labels == i)[0][0])
        assert iou(found.masks[best], mask) > 0.8 and found.scores[best] > 0.7


def test_losses_have_their_parts_and_reach_all_weights(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make(query_layers=4).train(), scene
    losses = network([pixels], [target])
    assert set(losses) == {"loss_class", "loss_mask", "loss_dice", "loss_earlier"}
    total(losses).backward()  # type: ignore[no-untyped-call]
    lacking = {name for name, weight in network.named_parameters() if weight.grad is None}
    assert not lacking
    assert set(make(query_layers=1).train()([pixels], [target])) == {"loss_class", "loss_mask", "loss_dice"}


def test_nothing_to_find_teaches_names_alone(make: Network, empty: Empty) -> None:
    network = make().train()
    losses = network([torch.rand(3, 50, 70)], [empty((50, 70))])
    assert losses["loss_mask"] == 0 and losses["loss_dice"] == 0 and 0 < losses["loss_class"] < 20
    total(losses).backward()  # type: ignore[no-untyped-call]
    assert all(bool(w.grad.isfinite().all()) for w in network.parameters() if w.grad is not None)


def test_pictures_of_several_sizes_with_and_without_things(make: Network, scene: Scene, empty: Empty) -> None:
    network, (pixels, target) = make().train(), scene
    losses = network([torch.rand(3, 40, 100), pixels], [empty((40, 100)), target])
    assert bool(total(losses).isfinite()) and losses["loss_mask"] > 0


def test_more_things_than_queries(make: Network, scene: Scene) -> None:
    pixels, target = scene
    assert bool(total(make(queries=1).train()([pixels], [target])).isfinite())


def test_in_half_precision_losses_are_nearly_the_same(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make().train(), scene
    both = []
    for half in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            both.append(torch.stack(list(network([pixels], [target]).values())))
    assert both[1].dtype == torch.float32
    assert_close(both[1], both[0], dtype=torch.bfloat16, depth="network")


def test_training_goes_on_after_use(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make(side=64).eval(), scene
    network.detect([pixels])
    total(network.train()([pixels], [target])).backward()  # type: ignore[no-untyped-call]


# beside transformers


class Encoder(nn.Module):
    """The ResNet as transformers takes it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(feature_maps=list(self.backbone(pixels).values()))


def whole_model(network: Mask2Former) -> Any:
    """Transformers' model of the sizes of a network, on its ResNet."""
    settings = build_transformers_config(network.config)
    settings.backbone_config = ResNetConfig(
        embedding_size=8, hidden_sizes=network.backbone.widths, depths=[1] * 4, out_features=[f"stage{i}" for i in (1, 2, 3, 4)]
    )
    whole = Mask2FormerForUniversalSegmentation(settings)
    whole.model.pixel_level_module.encoder = Encoder(network.backbone)
    return whole


def parted(network: Mask2Former, whole: Any) -> list[tuple[nn.Module, nn.Module]]:
    """The parts of a network, and those of transformers' model."""
    heads: Any = network.heads
    return [
        (heads.pixel_decoder, whole.model.pixel_level_module.decoder),
        (heads.query_decoder, whole.model.transformer_module),
        (heads.class_predictor, whole.class_predictor),
    ]


def test_answers_and_losses_are_those_of_transformers(make: Network, scene: Scene, empty: Empty) -> None:
    network, (pixels, target) = make(query_layers=4), scene
    images = [pixels, torch.rand(3, 64, 96)]
    inputs = pad_batch([normalize_image(p, network.config.mean, network.config.std) for p in images])
    masks = [F.pad(target.masks.float(), (0, 16)), empty((64, 96)).masks.float()]
    whole = whole_model(network)
    for part, of_whole in parted(network, whole):
        of_whole.load_state_dict(part.state_dict(), strict=True)
    torch.manual_seed(5)
    theirs = whole.train()(inputs, mask_labels=masks, class_labels=[target.labels, empty((64, 96)).labels])
    torch.manual_seed(5)
    ours = network.train()(images, [target, empty((64, 96))])
    assert_close(total(ours), theirs.loss, depth="network")
    logits, stretched = network.run_queries(inputs)
    assert_close(logits, theirs.class_queries_logits, depth="network")
    assert_close(stretched, theirs.masks_queries_logits, depth="network")


def test_first_weights_are_drawn_as_in_transformers(make: Network) -> None:
    network = make(channels=64, queries=50)
    for ours, theirs in parted(network, whole_model(network)):
        fresh = theirs.state_dict()  # drawn anew: mean and spread of some hundred numbers are nearly the same
        for name, weight in ours.state_dict().items():
            assert float(weight.mean()) == pytest.approx(float(fresh[name].mean()), abs=0.25), name
            assert float(weight.std()) == pytest.approx(float(fresh[name].std()), rel=0.25, abs=1e-3), name


# answers


def in_a_loop(
    logits: Tensor, masks: Tensor, read: tuple[int, int], size: tuple[int, int], config: DetectorConfig
) -> list[tuple[float, int, Tensor]]:
    """Every pair of a query and a name, with all masks made whole."""
    whole = F.interpolate(masks[None], size=(masks.shape[1] * 4, masks.shape[2] * 4), mode="bilinear", align_corners=False)
    fine = F.interpolate(whole[:, :, : read[0], : read[1]], size=size, mode="bilinear", align_corners=False)[0]
    pairs = [(float(p), q, k) for q, row in enumerate(logits.softmax(1)) for k, p in enumerate(row[:-1])]
    answers = []
    for score, q, k in sorted(pairs, key=lambda pair: -pair[0])[: config.detections]:
        mask = fine[q] > 0
        if mask.any():
            answers.append((score * float(fine[q].sigmoid()[mask].mean()), k, mask))
    return sorted((one for one in answers if one[0] > config.score_floor), key=lambda one: -one[0])


@pytest.mark.parametrize(("floor", "most"), [(0.0, 100), (0.12, 100), (0.0, 7)])
def test_the_best_queries_are_those_of_a_loop(tiny: Make, floor: float, most: int) -> None:
    config = tiny("mask2former", **SMALL, score_floor=floor, detections=most)
    draw = torch.Generator().manual_seed(2)
    # as doubles, no pixel is so near to an edge that it could fall on either side
    logits, masks = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((8, 3), (8, 8, 16)))
    masks[3] = -1.0  # of nothing
    found = select_best_queries(logits, masks, (30, 50), (75, 125), config)
    expected = in_a_loop(logits, masks, (30, 50), (75, 125), config)
    assert 0 < len(found.scores) == len(expected) <= most
    assert_close(found.scores, [score for score, _, _ in expected])
    assert found.labels.tolist() == [k for _, k, _ in expected]
    assert torch.equal(found.masks, torch.stack([mask for _, _, mask in expected]))
    np.testing.assert_array_equal(found.boxes.numpy(), compute_tight_boxes(found.masks.numpy()))


def test_masks_lie_where_their_cells_do(tiny: Make) -> None:
    config = tiny("mask2former", names=("object",), **{**SMALL, "queries": 2})
    masks = torch.full((2, 16, 16), -8.0)
    masks[0, 2:10, 4:8] = 8  # cells of 4 px: rows 8 to 40, columns 16 to 32
    masks[1, :, 12:] = 8  # columns 48 to 64, of which images of 50 px see two
    found = select_best_queries(torch.tensor([[9.0, 0], [6.0, 0]]), masks, (64, 50), (128, 100), config)
    assert found.boxes.tolist() == [[32, 16, 64, 80], [96, 0, 100, 128]]
    assert found.labels.tolist() == [0, 0] and float(found.scores[0]) > float(found.scores[1]) > 0.9


def test_queries_that_see_nothing_find_nothing(tiny: Make) -> None:
    config = tiny("mask2former", **SMALL)
    logits = torch.tensor([[0.0, 0.0, 9.0]] * 8)
    for found in (
        select_best_queries(logits, torch.ones(8, 8, 8), (32, 32), (40, 60), config),
        select_best_queries(-logits, -torch.ones(8, 8, 8), (32, 32), (40, 60), config),
    ):
        assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,), (0, 40, 60)]
        assert found.labels.dtype == torch.int64 and found.masks.dtype == torch.bool


def same(a: RawDetections, b: RawDetections) -> None:
    """The same answers, those of like scores in any order."""
    one, other = (Detections.from_masks(f.masks.numpy(), f.labels.numpy(), f.scores.numpy(), ("disc", "bar")) for f in (a, b))
    assert_same_detections(one, other)


def test_a_picture_alone_and_beside_bigger_ones_gives_the_same(make: Network) -> None:
    network = make(score_floor=0.0, side=48).eval()
    sizes = [(50, 70), (90, 130), (50, 70), (33, 100), (20, 20)]
    images = [torch.rand(3, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]
    together = network.detect(images)
    for image, size, found in zip(images, sizes, together, strict=True):
        assert len(found.scores) > 0 and found.masks.shape == (len(found.scores), *size)
        assert found.boxes.shape == (len(found.scores), 4) and found.scores.diff().le(0).all()
        np.testing.assert_array_equal(found.boxes.numpy(), compute_tight_boxes(found.masks.numpy()))
        same(found, network.detect([image])[0])
    assert network.detect([]) == []


def test_many_pictures_of_a_size_come_in_parts(make: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(score_floor=0.0, side=32, longest=64).eval()
    images = [torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    whole = network.detect(images)
    monkeypatch.setattr("annofree.detectors.base._BATCH", 2)
    for a, b in zip(whole, network.detect(images), strict=True):
        same(a, b)


def test_a_class_agnostic_one_finds_objects(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make(names=("object",), score_floor=0.0), scene
    agnostic = target._replace(labels=torch.zeros(2, dtype=torch.int64))
    assert bool(total(network.train()([pixels], [agnostic])).isfinite())
    found = network.eval().detect([pixels])[0]
    assert network.config.agnostic and set(found.labels.tolist()) == {0}
    with pytest.raises(InputError, match="labels from 0 to 0"):
        network.train()([pixels], [target])


# weights


def test_it_goes_to_a_folder_and_back(make: Network, scene: Scene, tmp_path: Path) -> None:
    network = make(score_floor=0.0).eval()
    save_detector(network, tmp_path, torch.float32)
    same(load_detector(tmp_path).detect([scene[0]])[0], network.detect([scene[0]])[0])
    save_detector(network, tmp_path)
    half = load_detector(tmp_path)
    assert half.config == network.config and len(half.detect([scene[0]])[0].scores) > 0


def test_the_resnet_starts_from_weights_of_torchvision(make: Network) -> None:
    network = make(backbone="resnet18", norm="frozen")
    state = resnet18().state_dict()
    taken = load_backbone(network, state)
    assert set(taken.left_out) - {n for n in state if n.endswith("num_batches_tracked")} == {"fc.weight", "fc.bias"}
    assert torch.equal(network.state_dict()["backbone.body.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert not any("fpn" in name for name in network.state_dict())


def test_other_names_start_fresh(make: Network) -> None:
    network = make(names=("a", "b", "c"))
    fresh = transfer(network, make().state_dict()).fresh
    assert set(fresh) == {"heads.class_predictor.weight", "heads.class_predictor.bias", "heads.criterion.empty_weight"}


def test_its_shapes_are_known_without_weights(tiny: Make, make: Network) -> None:
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in build_network(tiny("mask2former", **SMALL)).state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in make().state_dict().items()}


# what is refused


def test_channels_that_do_not_fit_are_refused(tiny: Make) -> None:
    for channels, heads in ((48, 4), (96, 5)):
        with pytest.raises(InputError, match="multiple of 32 and of its heads"):
            build_network(tiny("mask2former", **{**SMALL, "channels": channels, "heads": heads}))


def test_use_and_training_are_kept_apart(make: Network, scene: Scene) -> None:
    network, (pixels, target) = make(), scene
    with pytest.raises(InputError, match="evaluation mode"):
        network.train().detect([pixels])
    with pytest.raises(InputError, match="training mode"):
        network.eval()([pixels], [target])
