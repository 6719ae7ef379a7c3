"""``annofree train found``: FOUND's saliency head on the keys of a DINO."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_found import train_found

__all__ = ["found"]


def found(
    out: options.ModelFolder,
    dino: options.DinoFolder,
    refine: options.Refine = "pamr",
    control: options.Control = True,
    minutes: options.Minutes = None,
    samples: options.Samples = None,
    seed: options.Seed = 0,
    font: options.Font = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train FOUND's head on a DINO's keys, on unlabeled images of the emoji world; 6 minutes, twice with its control.

    Example: annofree train found --dino tiny-dino --out tiny-found
    """
    with show_training(quiet) as callbacks:
        model = train_found(
            dino, out, refine=refine, control=control, minutes=minutes, samples=samples, seed=seed, font=font,
            device=device, callbacks=callbacks,
        )  # fmt: skip
    print_trained(model, "emoji world, unseen scenes", digits=3)
