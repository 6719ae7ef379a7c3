"""``annofree train tiny-clip``, ``tiny-clip-vit``, ``tiny-sam`` and ``tiny-dino``: tiny models such as the bundled ones."""

from __future__ import annotations

from collections.abc import Callable

from annofree.apps.cli.options import pass_on
from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_tiny import train_tiny

__all__ = ["TINY_COMMANDS"]


def make_command(model: str, about: str) -> Callable[..., None]:
    """Return the command that trains a tiny model, with its help."""

    def command(
        out: options.ModelFolder,
        minutes: options.Minutes = None,
        samples: options.Samples = None,
        pool: options.Pool = None,
        paced: options.Paced = False,
        workers: options.Workers = 0,
        seed: options.Seed = 0,
        font: options.Font = None,
        device: options.TrainDevice = "cpu",
        quiet: options.TrainQuiet = False,
    ) -> None:
        asked = pass_on(locals(), "model", "out", "quiet")
        with show_training(quiet) as callbacks:
            trained = train_tiny(model, out, **asked, callbacks=callbacks)
        print_trained(trained, "emoji world, unseen scenes", digits=3)

    command.__doc__ = f"{about}\n\nExample: annofree train tiny-{model} --out tiny-{model}"
    return command


TINY_COMMANDS = {
    "tiny-clip": make_command("clip", "Train the tiny CLIP on captions of the emoji world; 90 minutes on one core."),
    "tiny-clip-vit": make_command(
        "clip-vit", "Train the tiny CLIP ViT in the text space of tiny-clip, which teaches it; 70 minutes on one core."
    ),
    "tiny-sam": make_command("sam", "Train the tiny SAM on class-agnostic masks of emoji scenes; about two hours on one core."),
    "tiny-dino": make_command("dino", "Train the tiny DINO on emoji images, without any annotation; 20 minutes on one core."),
}
"""The command of each tiny model, by its name."""
