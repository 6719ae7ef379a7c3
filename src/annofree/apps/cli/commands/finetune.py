"""``annofree finetune``: train a detector further on a share of a person's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.commands.train_detector import run

__all__ = ["finetune"]


def finetune(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a detector.", metavar="CHECKPOINT", show_default=False)],
    labels: Annotated[Path, typer.Option(help="A COCO file with masks, or what `annofree pseudo-label` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; a run stopped there goes on.")],
    images: Annotated[Path | None, typer.Option(help="The folder that its file names count from.")] = None,
    fraction: Annotated[float, typer.Option(help="The share of the pictures to learn from, over 0, up to 1.")] = 1.0,
    split_seed: Annotated[int, typer.Option(help="Which share that is.", min=0)] = 42,
    agnostic: Annotated[bool, typer.Option(help="Learn all names as one, object.")] = False,
    steps: Annotated[
        int | None, typer.Option(help="Steps in all; else Zip's for this share. The schedule follows.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Scenes a step, over all processes.", min=1)] = 16,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; else that of the schedule, in proportion to the batch.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the scenes and of what is made anew.", min=0)] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in half precision.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that make scenes ahead.", min=0)] = 0,
    sample_every: Annotated[int, typer.Option(help="Draw samples every so many steps; 0: none.", min=0)] = 0,
    name: Annotated[str, typer.Option(help="Of the model's card.")] = "own-detector",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors and the figures.")] = False,
) -> None:
    """Train a detector further on labels; where those have other names, the layers that name start anew.

    Steps, decay and warm-up are those of Zip's label-efficient tuning for the share of labels. Ctrl-C keeps what was done.

    Example: annofree finetune detector --labels labels --out tuned --fraction 0.05
    """
    from annofree.training.detector.finetune import tuning

    recipe = tuning(
        checkpoint, labels, out, fraction, batch=batch, steps=steps, lr=lr, images=images, split_seed=split_seed,
        agnostic=agnostic, seed=seed, bf16=bf16, workers=workers, sample_every=sample_every, name=name,
    )  # fmt: skip
    run(recipe, device, quiet)
