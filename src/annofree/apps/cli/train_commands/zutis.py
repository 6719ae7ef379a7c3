"""``annofree train zutis``: a segmenter from an archive of retrieved images and their masks."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_zutis import train_zutis

__all__ = ["zutis"]


def zutis(
    config: options.Config,
    archive: options.Archive = None,
    out: options.OtherFolder = None,
    steps: options.OtherSteps = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train ZUTIS on images that names retrieved, without any annotation.

    Ctrl-C keeps what was done.  On four GPUs: torchrun --no-python --nproc-per-node 4 annofree train zutis ... --device cuda.

    Example: annofree train zutis --config recipes/zutis/voc-ablation.toml
    """
    with show_training(quiet) as callbacks:
        model = train_zutis(config, archive=archive, out=out, steps=steps, device=device, callbacks=callbacks)
    print_trained(model)
