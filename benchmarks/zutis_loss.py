"""ZUTIS's losses: ours beside the way that the released code goes, with the same result up to rounding, forward and backward.

    masks      its way: each pair's cross-entropy written out pixel by pixel with its gradient, one Hungarian matching and one
               copy from the device for each image and layer; ours: products without a gradient, one copy, matched pairs only
    semantic   its way: features brought to the image's size, then compared with the words; ours: the other way round

Proposals are random, in blobs as a decoder's are; so are the instances.  Times are of one thread unless told otherwise:

    OMP_NUM_THREADS=1 python benchmarks/zutis_loss.py

On a machine that does other things as well, ``--processor-time`` leaves out the time that this process had to wait.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from annofree.testing.timing import Spread, format_spreads
from annofree.testing.tolerances import assert_close
from annofree.training.losses.set_losses import compute_semantic_loss, compute_set_loss

TARGET = 2.0
SMALL = {"images": 2, "layers": 2, "queries": 6, "instances": 3, "side": 32, "classes": 5, "dimension": 8, "repeats": 2}


class Inputs(NamedTuple):
    """What both ways are given: proposals, instances of each image, features, words and labels."""

    proposals: Tensor
    instances: list[Tensor]
    features: Tensor
    words: Tensor
    labels: Tensor


def made_up(asked: argparse.Namespace) -> Inputs:
    """Random inputs on a grid of an eighth of an image's side (patches of 16 px, enlarged twice)."""
    generator = torch.Generator().manual_seed(asked.seed)
    grid, side = asked.side // 8, asked.side

    def smooth(a: int, b: int, c: int, size: int) -> Tensor:
        coarse = torch.randn(a * b * c, 1, 6, 6, generator=generator)
        return F.interpolate(coarse, size=(size, size), mode="bicubic").view(a, b, c, size, size)

    proposals = (6 * smooth(asked.images, asked.layers, asked.queries, grid) - 3).sigmoid()
    instances = list(smooth(1, asked.images, asked.instances, side)[0] > 1)
    features = F.normalize(torch.randn(asked.images, asked.dimension, grid, grid, generator=generator), dim=1)
    words = F.normalize(torch.randn(asked.classes, asked.dimension, generator=generator), dim=1)
    labels = torch.randint(0, asked.classes, (asked.images, side, side), generator=generator)
    labels[:, : side // 8] = 255
    tensors = (t.to(asked.device) for t in (proposals, features, words, labels))
    proposals, features, words, labels = tensors
    return Inputs(proposals, [i.to(asked.device) for i in instances], features, words, labels)


# the way of the released code


def official_masks(proposals: Tensor, instances: Sequence[Tensor]) -> Tensor:
    total = proposals.new_zeros(())
    for masks, those in zip(proposals, instances, strict=True):
        truth = those.flatten(1).float()
        for layer in masks:
            up = F.interpolate(layer[None], size=those.shape[-2:], mode="bilinear", align_corners=False)[0].flatten(1)
            dice = 1 - (2 * up @ truth.T + 1) / (up.sum(1)[:, None] + truth.sum(1)[None] + 1)
            shape = (len(up), *truth.shape)
            bce = F.binary_cross_entropy(up[:, None].expand(shape), truth[None].expand(shape), reduction="none").mean(2)
            cost = dice + bce
            rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
            total = total + cost[rows, columns].sum()
    return total / len(proposals)


def official_semantic(features: Tensor, words: Tensor, labels: Tensor) -> Tensor:
    up = F.interpolate(features, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(torch.einsum("kd,bdhw->bkhw", words, up), labels, ignore_index=255)


# ours


def our_masks(proposals: Tensor, instances: Sequence[Tensor]) -> Tensor:
    loss = compute_set_loss(proposals, instances)
    return loss.dice + loss.bce


# the clock


class Answer(NamedTuple):
    """A loss, its gradient, and the seconds that both took."""

    loss: Tensor
    gradient: Tensor
    seconds: float


Clock = Callable[[], float]


def answer(loss_of: Callable[[Tensor], Tensor], given: Tensor, clock: Clock) -> Answer:
    given = given.detach().clone().requires_grad_()
    _wait(given)
    start = clock()
    loss = loss_of(given)
    loss.backward()  # type: ignore[no-untyped-call]
    _wait(given)
    seconds = clock() - start
    assert given.grad is not None
    return Answer(loss.detach(), given.grad, seconds)


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def check(part: str, ours: Answer, official: Answer) -> None:
    """Refuse to compare the times of ways that do not agree; raises SystemExit."""
    unit = official.gradient.abs().max()  # each is divided by the number of pixels
    try:
        assert_close(ours.loss, official.loss)
        assert_close(ours.gradient / unit, official.gradient / unit)
    except AssertionError as problem:
        raise SystemExit(f"expected equal {part} losses and gradients, but {problem}; nothing is told") from None


def compared(inputs: Inputs, repeats: int, clock: Clock) -> dict[str, dict[str, list[float]]]:
    """Seconds of each part by each way, once a repeat, in turn, so that a slow spell of the machine meets both."""
    p, instances, f, words, labels = inputs
    ways: dict[str, tuple[Tensor, dict[str, Callable[[Tensor], Tensor]]]] = {
        "masks": (p, {"ours": lambda x: our_masks(x, instances), "official": lambda x: official_masks(x, instances)}),
        "semantic": (
            f,
            {
                "ours": lambda x: compute_semantic_loss(x, words, labels),
                "official": lambda x: official_semantic(x, words, labels),
            },
        ),
    }
    seconds: dict[str, dict[str, list[float]]] = {part: {"ours": [], "official": []} for part in ways}
    for _ in range(repeats):
        for part, (given, both) in ways.items():
            answers = {way: answer(loss_of, given, clock) for way, loss_of in both.items()}
            check(part, answers["ours"], answers["official"])
            for way, found in answers.items():
                seconds[part][way].append(found.seconds)
    together = {way: [sum(s) for s in zip(*(seconds[part][way] for part in ways), strict=True)] for way in ("ours", "official")}
    return {**seconds, "together": together}


def ratios(seconds: dict[str, dict[str, list[float]]]) -> dict[str, Spread]:
    """How many times as long the official way takes, divided within each repeat."""
    return {p: Spread.of([b / a for a, b in zip(s["ours"], s["official"], strict=True)]) for p, s in seconds.items()}


def table(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Lay out seconds a step and ratios as plain text."""
    each = {f"{part}, {way}": Spread.of(values) for part, ways in seconds.items() for way, values in ways.items()}
    ratio = format_spreads("official / ours", ratios(seconds), 40, 2, {"together": f">= {TARGET:g}"})
    return f"{format_spreads('seconds a step, forward and backward', each, 40, 3)}\n\n{ratio}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check that both ways agree, time them, and print a table."""
    parser = argparse.ArgumentParser(description="ZUTIS's losses: ours beside the official way.")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--instances", type=int, default=10, help="of each image")
    parser.add_argument("--side", type=int, default=384, help="of each image, in px")
    parser.add_argument("--classes", type=int, default=81)
    parser.add_argument("--dimension", type=int, default=512, help="of features")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor-time", action="store_true", help="count seconds of the processor, for one thread")
    parser.add_argument("--small", action="store_true", help="sizes of no meaning, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    if asked.small:
        vars(asked).update(SMALL)
    sizes = {k: getattr(asked, k) for k in SMALL}
    print(", ".join(f"{k} {v}" for k, v in sizes.items()) + f"; {asked.device}, {torch.get_num_threads()} threads")
    if asked.processor_time and (torch.get_num_threads() > 1 or asked.device != "cpu"):
        raise SystemExit("expected one thread of a CPU with --processor-time; set OMP_NUM_THREADS=1")
    seconds = compared(made_up(asked), asked.repeats, time.process_time if asked.processor_time else time.perf_counter)
    print("equal losses and gradients\n")
    print(table(seconds))
    if asked.json:
        record = {
            "settings": sizes | {"device": asked.device, "seed": asked.seed, "processor_time": asked.processor_time},
            "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.machine()},
            "seconds": seconds,
            "ratios": {part: spread._asdict() for part, spread in ratios(seconds).items()},
            "target": TARGET,
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
