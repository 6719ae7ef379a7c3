"""``annofree finetune``: train a detector further on a share of human annotations."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.apps.cli.training import print_trained, show_training
from annofree.pipelines.training import finetune as pipeline

__all__ = ["finetune"]


def finetune(
    checkpoint: options.Detector,
    out: options.ModelFolder,
    labels: options.TuningLabels = None,
    corrections: options.Corrections = None,
    images: options.ImageRoot = None,
    fraction: options.Fraction = 1.0,
    split_seed: options.SplitSeed = 42,
    agnostic: options.Agnostic = False,
    steps: options.TuningSteps = None,
    batch: options.ScenesPerStep = 16,
    lr: options.LearningRate = None,
    seed: options.Seed = 0,
    bf16: options.Bf16 = False,
    workers: options.Workers = 0,
    sample_every: options.SampleEvery = 0,
    name: options.ModelName = "own-detector",
    device: options.TrainDevice = "cpu",
    quiet: options.TrainQuiet = False,
) -> None:
    """Train a detector further on labels; where those have other names, the layers that name start anew.

    Steps, decay and warm-up are those of Zip's label-efficient tuning for the share of labels. Ctrl-C keeps what was done.

    Example: annofree finetune detector --labels labels --out tuned --fraction 0.05
    """
    with show_training(quiet) as callbacks:
        model = pipeline.finetune(
            checkpoint, labels, out, fraction=fraction, batch=batch, steps=steps, lr=lr, device=device, callbacks=callbacks,
            corrections=corrections, images=images, split_seed=split_seed, agnostic=agnostic, seed=seed, bf16=bf16,
            workers=workers, sample_every=sample_every, name=name,
        )  # fmt: skip
    print_trained(model)
