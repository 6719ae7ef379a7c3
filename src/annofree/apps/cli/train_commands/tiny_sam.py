"""``annofree train tiny-sam``: the bundled tiny SAM, made again."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_tiny import train_tiny

__all__ = ["tiny_sam"]


def tiny_sam(
    out: options.ModelFolder,
    minutes: options.Minutes = None,
    samples: options.Samples = None,
    pool: options.Pool = None,
    seed: options.Seed = 0,
    font: options.Font = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train the tiny SAM on class-agnostic masks of the emoji world; about two hours on one core.

    Example: annofree train tiny-sam --out tiny-sam
    """
    with show_training(quiet) as callbacks:
        model = train_tiny(
            "sam", out, minutes=minutes, samples=samples, pool=pool, seed=seed, font=font, device=device, callbacks=callbacks
        )
    print_trained(model, "emoji world, unseen scenes", digits=3)
