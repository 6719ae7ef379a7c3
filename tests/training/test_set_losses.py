import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.testing.tolerances import assert_close
from annofree.training.losses.set_losses import (
    compute_pairwise_bce,
    compute_pairwise_cost,
    compute_pairwise_dice,
    compute_semantic_loss,
    compute_set_loss,
    match_pairs,
)

B, L, Q, SIDE, FULL = 3, 2, 7, 6, 24


def some_proposals(seed: int = 0, sharpness: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(B, L, Q, SIDE, SIDE, generator=generator)).sigmoid()


def some_instances(*counts: int, seed: int = 1) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    found = []
    for count in counts:
        masks = torch.zeros(count, FULL, FULL, dtype=torch.bool)
        for mask in masks:
            y, x = rng.integers(0, FULL - 8, 2)
            mask[y : y + rng.integers(3, 9), x : x + rng.integers(3, 9)] = True
        found.append(masks)
    return found


def slow_costs(proposals: Tensor, instances: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and cross-entropy (Q, N) of one image and layer, each pair by itself, all pixels written out."""
    up = F.interpolate(proposals[None], size=instances.shape[-2:], mode="bilinear", align_corners=False)[0]
    dice = torch.stack([torch.stack([slow_dice(p, g.to(p)) for g in instances]) for p in up])
    bce = torch.stack([torch.stack([F.binary_cross_entropy(p, g.to(p)) for g in instances]) for p in up])
    return dice, bce


def slow_dice(p: Tensor, g: Tensor) -> Tensor:
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)


def slow_set_loss(proposals: Tensor, instances: list[Tensor]) -> Tensor:
    total = proposals.sum() * 0
    for masks, those in zip(proposals, instances, strict=True):
        if not those.any():
            continue
        for layer in masks:
            cost = sum(slow_costs(layer, those))
            assert isinstance(cost, Tensor)
            rows, columns = linear_sum_assignment(cost.detach().numpy())
            total = total + cost[rows, columns].sum()
    return total / len(proposals)


def flat(seed: int = 0, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    up = F.interpolate(some_proposals(seed, sharpness)[0], size=(FULL, FULL), mode="bilinear").flatten(2)[0]
    return up, some_instances(4)[0].flatten(1).float()


def assert_same_slopes(ours: Tensor, others: Tensor) -> None:
    """Compare gradients in units of the largest, for each is divided by the number of pixels."""
    assert ours.grad is not None and others.grad is not None
    unit = others.grad.abs().max()
    assert_close(ours.grad / unit, others.grad / unit)


@pytest.mark.parametrize("sharpness", [0.1, 3.0, 200.0])  # the last saturates at 0 and 1, where logarithms are bounded
def test_products_give_what_written_out_pairs_give(sharpness: float) -> None:
    p, g = flat(sharpness=sharpness)
    slow_bce = torch.stack([torch.stack([F.binary_cross_entropy(a, b) for b in g]) for a in p])
    assert_close(compute_pairwise_bce(p, g), slow_bce)
    slow = torch.stack([torch.stack([slow_dice(a, b) for b in g]) for a in p])
    assert_close(compute_pairwise_dice(p, g), slow)
    assert_close(compute_pairwise_cost(p, g), slow + slow_bce)


def test_extremes_stay_finite() -> None:
    p, g = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    expected = torch.tensor([[0.0, 50.0], [100.0, 50.0]])
    assert_close(compute_pairwise_bce(p, g), expected)


def test_matching_costs_as_little_as_scipy_finds_on_written_out_costs() -> None:
    proposals, instances = some_proposals(), some_instances(3, 1, 5)
    pairs = match_pairs(proposals, instances)
    assert len(pairs.images) == L * (3 + 1 + 5)
    for image in range(B):
        for layer in range(L):
            cost = sum(slow_costs(proposals[image, layer], instances[image]))
            assert isinstance(cost, Tensor)
            best = cost.numpy()[linear_sum_assignment(cost.numpy())].sum()
            mine = (pairs.images == image) & (pairs.layers == layer)
            rows, columns = pairs.proposals[mine], pairs.instances[mine]
            assert len(set(rows.tolist())) == len(rows) == len(instances[image])
            assert sorted(columns.tolist()) == list(range(len(instances[image])))
            assert_close(cost[rows, columns].sum(), float(best))


def test_more_instances_than_proposals_leaves_some_alone() -> None:
    proposals, instances = some_proposals()[:1], some_instances(Q + 2)
    pairs = match_pairs(proposals, instances)
    assert len(pairs.images) == L * Q
    assert_close(sum(compute_set_loss(proposals, instances)), slow_set_loss(proposals, instances))


@pytest.mark.parametrize("counts", [(3, 1, 5), (2, 0, 4), (0, 0, 1)])
def test_loss_and_gradient_are_those_of_the_naive_way(counts: tuple[int, ...]) -> None:
    instances = some_instances(*counts)
    # none is near 0 or 1, where the gradient magnifies how proposals were rounded
    ours, naive = (some_proposals(sharpness=1.0).requires_grad_() for _ in range(2))
    loss = compute_set_loss(ours, instances)
    (loss.dice + loss.bce).backward()  # type: ignore[no-untyped-call]
    slow = slow_set_loss(naive, instances)
    slow.backward()  # type: ignore[no-untyped-call]
    assert_close(loss.dice + loss.bce, slow)
    assert_same_slopes(ours, naive)


def test_an_empty_instance_beside_others_is_told_but_only_empty_ones_are_passed_over() -> None:
    one = some_instances(1, 0, 0)
    beside = [torch.cat([one[0], torch.zeros(1, FULL, FULL, dtype=torch.bool)]), *one[1:]]
    only = [one[0], torch.zeros(2, FULL, FULL, dtype=torch.bool), one[2]]
    proposals = some_proposals()
    base = sum(compute_set_loss(proposals, one))
    assert sum(compute_set_loss(proposals, beside)) > base
    assert sum(compute_set_loss(proposals, only)) == base


def test_nothing_to_find_is_no_loss_with_a_gradient_of_zero() -> None:
    proposals = some_proposals().requires_grad_()
    loss = compute_set_loss(proposals, some_instances(0, 0, 0))
    (loss.dice + loss.bce).backward()  # type: ignore[no-untyped-call]
    assert loss.dice.item() == loss.bce.item() == 0
    assert proposals.grad is not None and not proposals.grad.any()


def test_proposals_without_an_object_are_told_that_nothing_is_there() -> None:
    proposals, instances = some_proposals().requires_grad_(), some_instances(2, 0, 1)
    pairs, loss = match_pairs(proposals.detach(), instances), compute_set_loss(proposals, instances).empty
    free = torch.ones(proposals.shape[:3], dtype=torch.bool)
    free[pairs.images, pairs.layers, pairs.proposals] = False
    assert_close(loss, -(1 - proposals).log().mean((3, 4))[free].sum() / len(proposals))
    (slope,) = torch.autograd.grad(loss, proposals)
    assert bool((slope[free] > 0).all()) and not bool(slope[~free].any())


def test_matching_in_parts_is_matching_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proposals, instances = some_proposals(), some_instances(3, 0, 1)
    whole = match_pairs(proposals, instances)
    monkeypatch.setattr("annofree.training.losses.set_losses._AT_ONCE", 1)
    for one, other in zip(match_pairs(proposals, instances), whole, strict=True):
        assert torch.equal(one, other)


def test_matching_takes_one_copy_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[torch.Size] = []
    original = Tensor.cpu

    def counting(self: Tensor) -> Tensor:
        copies.append(self.shape)
        return original(self)

    monkeypatch.setattr(Tensor, "cpu", counting)
    for other in ("item", "tolist", "__bool__", "__float__", "__int__"):  # each of these would wait for a device
        monkeypatch.setattr(Tensor, other, None)
    compute_set_loss(some_proposals(), some_instances(3, 0, 5))
    assert copies == [(B, L, Q, 5)]


def test_half_precision_of_the_network_is_not_that_of_the_loss() -> None:
    proposals, instances = some_proposals(), some_instances(3, 1, 2)
    plain = compute_set_loss(proposals, instances)
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_set_loss(proposals, instances) == plain


def test_proposals_that_are_no_numbers_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="not numbers"):
        compute_set_loss(some_proposals() * torch.nan, some_instances(1, 1, 1))
    with pytest.raises(InputError, match="of B images"):
        compute_set_loss(some_proposals(), some_instances(1, 1))
    with pytest.raises(InputError, match="of one size"):
        compute_set_loss(some_proposals(), [*some_instances(1, 1), torch.ones(2, 5, 5, dtype=torch.bool)])


def some_cosines(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(2, 16, SIDE, SIDE, generator=generator, dtype=dtype), dim=1)
    words = F.normalize(torch.randn(5, 16, generator=generator, dtype=dtype), dim=1)
    labels = torch.randint(0, 5, (2, FULL, FULL), generator=generator)
    labels[0, :7] = 255
    return features, words, labels


def test_words_before_enlarging_give_the_loss_and_gradient_of_the_official_order() -> None:
    features, words, labels = some_cosines()
    ours, official = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss = compute_semantic_loss(ours, words, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    up = F.interpolate(official, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    expected = F.cross_entropy(torch.einsum("kd,bdhw->bkhw", words, up), labels, ignore_index=255)
    expected.backward()  # type: ignore[no-untyped-call]
    assert_close(loss, expected)
    assert_same_slopes(ours, official)


def test_ignored_pixels_tell_nothing() -> None:
    features, words, labels = some_cosines()
    assert float(compute_semantic_loss(features, words, torch.full_like(labels, 255))) == 0
    counted = (labels != 255).sum().float()
    assert_close(
        compute_semantic_loss(features, words, labels, counted=2 * counted), compute_semantic_loss(features, words, labels) / 2
    )
    other = torch.where(labels == 255, 254, labels)
    assert torch.equal(
        compute_semantic_loss(features, words, other, ignored=254), compute_semantic_loss(features, words, labels)
    )
