"""``annofree train selfmask``: images in, masks by a vote among spectral clusters, and a network that learned from them."""

from __future__ import annotations

import typer

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training.train_selfmask import train_selfmask

__all__ = ["selfmask"]


def selfmask(
    out: options.ModelFolder,
    images: options.ImageFolder = None,
    world: options.World = None,
    count: options.Count = 2000,
    sources: options.Sources = "dino,boundaries,colour",
    models: options.Preset = "tiny",
    dino: options.OtherDino = None,
    from_dino: options.FromDino = False,
    cells: options.Cells = 1024,
    side: options.Side = 128,
    queries: options.Queries = 20,
    steps: options.Steps = None,
    batch: options.Batch = None,
    rate: options.Rate = None,
    order: options.RankingLoss = "paper",
    seed: options.Seed = 0,
    exam: options.Exam = 60,
    font: options.Font = None,
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train SelfMask on masks that no person made; 15 minutes on one core by default.

    The masks go to OUT/voted and are kept.  Exit code 0: all done; 1: some images cannot be read and are named.

    Example: annofree train selfmask --images photos --out selfmask
    """
    with show_training(quiet, "masks") as callbacks:
        model = train_selfmask(
            out, images=images, world=world, count=count, sources=sources, models=models, dino=dino, from_dino=from_dino,
            cells=cells, side=side, queries=queries, steps=steps, batch=batch, rate=rate, order=order, seed=seed, exam=exam,
            font=font, device=device, callbacks=callbacks,
        )  # fmt: skip
    print_trained(model, digits=3)
    raise typer.Exit(1 if model.failed else 0)
