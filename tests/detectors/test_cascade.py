"""Cascade Mask R-CNN: its stages, its losses, what it finds, and that it learns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from annofree.detectors import cascade as module
from annofree.detectors.build import build_network
from annofree.detectors.cascade import IOUS, Cascade
from annofree.detectors.cascade_heads import scale_gradient
from annofree.detectors.config import DetectorConfig
from annofree.detectors.matching import compute_class_loss
from annofree.detectors.region_detector import select_best
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError
from annofree.testing.tolerances import assert_close, assert_same_masks

Make = Callable[..., DetectorConfig]
Empty = Callable[[tuple[int, int]], DetectionTargets]
Scene = tuple[Tensor, DetectionTargets]
Levels = dict[str, Tensor]


@pytest.fixture
def network(tiny: Make) -> Cascade:
    torch.manual_seed(0)
    made = build_network(tiny())
    assert isinstance(made, Cascade)
    return made


def grads(network: torch.nn.Module, prefix: str) -> list[Tensor]:
    return [p.grad for name, p in network.named_parameters() if name.startswith(prefix) and p.grad is not None]


def learn(network: torch.nn.Module, scene: Scene, steps: int) -> list[float]:
    optimizer, history = torch.optim.Adam(network.parameters(), 6e-3, fused=True), []
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 8) * (1 - 0.95 * i / steps))
    network.train()
    for _ in range(steps):
        loss = torch.stack(list(network([scene[0]], [scene[1]]).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        history.append(loss.item())
    return history


def fit(network: Cascade, scene: Scene) -> float:
    """The least IoU, of a box and of its mask, with which the objects of a scene are found."""
    found = network.eval().detect([scene[0]])[0]
    assert (found.scores[:-1] >= found.scores[1:]).all() and found.masks.shape[1:] == (64, 80)
    if not len(found.boxes):
        return 0.0
    fits = []
    for box, mask in zip(scene[1].boxes, scene[1].masks, strict=True):
        overlap, at = box_iou(box[None], found.boxes)[0].max(0)
        fits += [float(overlap), float((found.masks[at] & mask).sum() / (found.masks[at] | mask).sum())]
    return min(fits)


def test_mask_rcnn_learns_too(tiny: Make, scene: Scene) -> None:
    history = learn(build_network(tiny("mask_rcnn")), scene, 30)
    assert sum(history[-5:]) / 5 < 0.5 * history[0]  # at most 0.3 of it from any of 16 seeds


def test_it_learns_a_scene(tiny: Make, scene: Scene) -> None:
    fits = []
    for seed in range(3):  # one start in some twenty leaves an object hardly found, and rounding decides which one
        torch.manual_seed(seed)
        network = build_network(tiny(roi_batch=64, sampling=1))
        assert isinstance(network, Cascade)
        history = learn(network, scene, 60)
        assert sum(history[-5:]) / 5 < 0.5 * history[0]  # at most 0.3 of it from any of 20 seeds
        fits.append(fit(network, scene))
        if fits[-1] > 0.5:
            return
    raise AssertionError(f"expected the objects to be found with an IoU above 0.5 after one of three starts, got {fits}")


def test_boxes_move_alike_whatever_their_name(network: Cascade) -> None:
    logits, deltas = network.stages[0](torch.randn(5, 16, 7, 7))
    assert logits.shape == (5, 3) and deltas.shape == (5, 4)


class Spy:
    """Notes which boxes are looked into, and what comes of it."""

    def __init__(self, network: Cascade) -> None:
        self.boxes: list[list[Tensor]] = []
        self.out: list[tuple[Tensor, Tensor]] = []
        self.look = network._look

    def __call__(self, stage: Any, levels: Levels, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        self.boxes.append(list(boxes))
        self.out.append(self.look(stage, levels, boxes))
        return self.out[-1]


def decoded(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes after their deltas, written out."""
    (dx, dy, dw, dh), size = (deltas / torch.tensor(weights)).T, boxes[:, 2:] - boxes[:, :2]
    center = boxes[:, :2] + size / 2 + torch.stack([dx, dy], 1) * size
    half = size * torch.stack([dw, dh], 1).exp() / 2
    clipped: Tensor = clip_boxes_to_image(torch.cat([center - half, center + half], 1), (64, 64))
    return clipped


def test_each_stage_reads_the_boxes_of_the_one_before_and_scores_are_averaged(
    network: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, seen = Spy(network), dict[str, Tensor]()
    monkeypatch.setattr(network, "_look", spy)
    kept = select_best

    def note(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> tuple[Tensor, Tensor, Tensor]:
        seen.update(boxes=boxes, scores=scores)
        return kept(boxes, scores, config)

    monkeypatch.setattr(module, "select_best", note)
    network.eval().locate(torch.randn(3, 64, 64))
    assert len(spy.boxes) == 3 and len(spy.boxes[0][0]) > 10
    for i, weights in enumerate(((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))):
        after = decoded(spy.boxes[i][0], spy.out[i][1], weights)
        assert_close(after, spy.boxes[i + 1][0] if i < 2 else seen["boxes"])
    mean = torch.stack([logits.exp() / logits.exp().sum(1, keepdim=True) for logits, _ in spy.out]).mean(0)
    assert_close(seen["scores"], mean[:, :2])


def test_stages_are_taught_by_rising_overlaps(network: Cascade, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    spy, taught = Spy(network), list[Tensor]()
    monkeypatch.setattr(network, "_look", spy)

    def note(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        taught.append(labels)
        return compute_class_loss(logits, labels, weights)

    monkeypatch.setattr(module, "compute_class_loss", note)
    network.train()([scene[0]], [scene[1]])
    for iou, boxes, labels in zip(IOUS, spy.boxes, taught, strict=True):
        overlap, matched = box_iou(boxes[0], scene[1].boxes).max(1)  # the same numbers as within: of each pair alone
        assert torch.equal(labels, torch.where(overlap >= iou, scene[1].labels[matched], 2))
    # the objects' own boxes are among the first ones
    assert (box_iou(spy.boxes[0][0], scene[1].boxes).amax(0) == 1).all()


def test_a_third_of_each_stage_reaches_the_pyramid(network: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {str(i): torch.randn(1, 16, 64 >> i + 2, 64 >> i + 2, requires_grad=True) for i in range(4)}
    boxes = [torch.tensor([[0.0, 0, 16, 16]])]
    made = list[tuple[Tensor, Tensor]]()
    for scale in (lambda x, _: x, scale_gradient):
        levels["0"].grad = None
        monkeypatch.setattr(module, "scale_gradient", scale)
        logits, _ = network._look(network.stages[0], levels, boxes)
        (logits**2).sum().backward()  # type: ignore[no-untyped-call]
        assert levels["0"].grad is not None
        made.append((logits.detach(), levels["0"].grad))
    assert_close(made[0][0], made[1][0])
    assert_close(made[0][1] / 3, made[1][1])
    assert made[0][1].any()


@pytest.mark.parametrize("kind", ["cascade", "mask_rcnn"])
@pytest.mark.parametrize("bf16", [False, True])
def test_pictures_with_nothing_in_them_train(tiny: Make, scene: Scene, empty: Empty, kind: str, bf16: bool) -> None:
    torch.manual_seed(2)
    network = build_network(tiny(kind)).train()
    other = torch.rand(3, 40, 96)
    for pixels, targets, any_object in (
        ([scene[0], other], [scene[1], empty((40, 96))], True),
        ([scene[0], other], [empty((64, 80)), empty((40, 96))], False),
    ):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = network(pixels, targets)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
        # every weight takes part, as several processes that share a batch need it
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters() if p.requires_grad)
        boxes_and_masks = ["rpn.head.bbox_pred", "stages.0.move", "stages.2.move", "mask.", "roi_heads.mask"]
        moved = [bool(g.any()) for prefix in boxes_and_masks for g in grads(network, prefix)]
        assert any(moved) if any_object else not any(moved)
        assert any(g.any() for g in grads(network, "rpn.head.cls_logits"))


def test_drop_loss_changes_the_class_losses_alone(tiny: Make, scene: Scene) -> None:
    losses = []
    for drop in (0.0, 0.3):
        torch.manual_seed(3)
        network = build_network(tiny(drop_loss=drop)).train()
        losses.append(network([scene[0]], [scene[1]]))
    plain, dropped = losses
    for name, loss in plain.items():
        if name.startswith("loss_class"):
            assert 0 < dropped[name] < loss
        else:
            assert_close(dropped[name], loss)


def test_what_is_found_does_not_depend_on_the_other_pictures(network: Cascade) -> None:
    network.eval()
    network.config = replace(network.config, score_floor=0.0, detections=7)
    with torch.no_grad():  # scores differ, and masks are neither empty nor full
        for stage in network.stages:
            stage.score.weight *= 30
        network.mask.predictor.mask_fcn_logits.weight *= 1000
    rng = torch.Generator().manual_seed(5)
    images = [torch.rand(3, h, w, generator=rng) for h, w in ((64, 64), (50, 120), (128, 128), (64, 64))]
    together, alone = network.detect(images), [network.detect([p])[0] for p in images]
    for a, b, image in zip(together, alone, images, strict=True):
        assert_close(a.boxes, b.boxes, depth="network")
        assert_close(a.scores, b.scores, depth="network")
        assert a.scores.diff().abs().min() > 1e-5  # far enough apart to come in one order
        assert_same_masks(a.masks, b.masks)
        assert a.masks.shape == (7, *image.shape[1:]) and torch.equal(a.labels, b.labels)
        assert bool(a.masks.any())
        assert a.boxes.amax() <= max(image.shape) and a.boxes.amin() >= 0


def test_nothing_found_is_an_answer(network: Cascade) -> None:
    network.config = replace(network.config, score_floor=1.0)
    found = network.eval().detect([torch.rand(3, 70, 50)])[0]
    assert found.masks.shape == (0, 70, 50) and found.boxes.shape == (0, 4) and not len(found.labels) + len(found.scores)
    assert network.detect([]) == []


def test_boxes_stay_off_the_padding(network: Cascade) -> None:
    network.config = replace(network.config, score_floor=0.0)
    located = network.eval().locate(torch.randn(3, 96, 64), (70, 40))
    assert (located.boxes[:, 2] <= 40).all() and (located.boxes[:, 3] <= 70).all()
    assert located.masks.shape == (len(located.boxes), 28, 28)
    assert ((located.masks >= 0) & (located.masks <= 1)).all()


def test_wrong_modes_and_targets_are_refused(network: Cascade, scene: Scene, empty: Empty) -> None:
    pixels, target = scene
    with pytest.raises(InputError, match="evaluation mode"):
        network.train().detect([pixels])
    with pytest.raises(InputError, match="training mode"):
        network.eval()([pixels], [target])
    network.train()
    for images, targets, said in (
        ([pixels], [], "a target each, got 1 and 0"),
        ([pixels], [empty((64, 64))], r"masks \(N, 64, 80\)"),
        ([pixels], [target._replace(labels=torch.tensor([0, 2]))], "labels from 0 to 1"),
        ([pixels], [target._replace(boxes=target.boxes.flip(1))], "with an area"),
        ([pixels * 1j], [target], "floats in 0"),
    ):
        with pytest.raises(InputError, match=said):
            network(images, targets)
