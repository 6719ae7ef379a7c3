"""``annofree train detector``: a detector from labels that a method or a person made."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_detector import train_detector

__all__ = ["detector"]


def detector(
    config: options.Config,
    labels: options.OtherLabels = None,
    images: options.OtherImages = None,
    out: options.OtherFolder = None,
    initial: options.Initial = None,
    steps: options.OtherSteps = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train a detector on labels, such as those that a method made by itself; then: annofree segment --method OUT.

    Ctrl-C keeps what was done.  On four GPUs: torchrun --no-python --nproc-per-node 4 annofree train detector ...
    --device cuda.

    Example: annofree train detector --config recipes/zip/self-training.toml
    """
    with show_training(quiet) as callbacks:
        model = train_detector(
            config, labels=labels, images=images, out=out, initial=initial, steps=steps, device=device, callbacks=callbacks
        )
    print_trained(model)
