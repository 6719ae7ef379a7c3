"""``annofree train namedmask``: a network that labels pixels, from an archive of retrieved images and their masks."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_namedmask import train_namedmask

__all__ = ["namedmask"]


def namedmask(
    config: options.Config,
    archive: options.Archive = None,
    initial: options.Initial = None,
    out: options.OtherFolder = None,
    steps: options.OtherSteps = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train NamedMask on images that names retrieved, without any annotation.

    The folder that it writes is a method: annofree segment photos --method OUT --task semantic --classes "dog, cat".
    Ctrl-C keeps what was done.

    Example: annofree train namedmask --config namedmask.toml --archive archive
    """
    with show_training(quiet) as callbacks:
        model = train_namedmask(
            config, archive=archive, initial=initial, out=out, steps=steps, device=device, callbacks=callbacks
        )
    print_trained(model)
