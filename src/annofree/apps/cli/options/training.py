"""Options of the commands that train: train, finetune and export-model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Agnostic",
    "Archive",
    "Batch",
    "Bf16",
    "Cells",
    "Check",
    "Checkpoint",
    "Config",
    "Control",
    "Corrections",
    "Count",
    "Detector",
    "DinoFolder",
    "Exam",
    "Font",
    "Fraction",
    "FromDino",
    "ImageFolder",
    "ImageRoot",
    "Initial",
    "Labels",
    "LearningRate",
    "Minutes",
    "ModelFile",
    "ModelFolder",
    "ModelFormat",
    "ModelName",
    "OtherDino",
    "OtherFolder",
    "OtherImages",
    "OtherLabels",
    "OtherSteps",
    "Paced",
    "Pool",
    "Preset",
    "Queries",
    "RankingLoss",
    "Rate",
    "Refine",
    "SampleEvery",
    "Samples",
    "ScenesPerStep",
    "Seed",
    "Side",
    "Sources",
    "SplitSeed",
    "Steps",
    "TrainDevice",
    "TrainQuiet",
    "TuningLabels",
    "TuningSteps",
    "Workers",
    "World",
]

# of every training

ModelFolder = Annotated[
    Path, typer.Option("--out", help="The folder to write the model to; a run stopped there is resumed.", show_default=False)
]
Seed = Annotated[int, typer.Option(help="Random seed for scene generation and weight initialization.", min=0)]
TrainDevice = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")]
TrainQuiet = Annotated[bool, typer.Option(help="Print nothing but errors and the figures.")]
Steps = Annotated[int | None, typer.Option(help="Training steps.", min=1)]
Batch = Annotated[int | None, typer.Option(help="Images per step.", min=1)]
Font = Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, if the system has none.")]

# by a recipe

Config = Annotated[Path, typer.Option(help="The recipe, a TOML file such as those in recipes/.", show_default=False)]
OtherFolder = Annotated[
    Path | None,
    typer.Option("--out", help="The folder to write to; overrides the recipe's. A run stopped there is resumed."),
]
OtherSteps = Annotated[
    int | None,
    typer.Option("--steps", help="Total steps; overrides the recipe's. The learning-rate schedule is rescaled.", min=1),
]
OtherLabels = Annotated[
    Path | None,
    typer.Option("--labels", help="A COCO file, or what `annofree pseudo-label` wrote; overrides the recipe's."),
]
OtherImages = Annotated[
    Path | None, typer.Option("--images", help="The folder that its file names count from; overrides the recipe's.")
]
Initial = Annotated[
    str | None, typer.Option(help="Initial weights: a detector, or weights of a ResNet; overrides the recipe's.")
]
Archive = Annotated[Path | None, typer.Option(help="The archive of images and masks; overrides the recipe's.")]

# finetune and export-model

Detector = Annotated[Path, typer.Argument(help="The folder of a detector.", metavar="CHECKPOINT", show_default=False)]
Labels = Annotated[
    Path, typer.Option(help="A COCO file with masks, or what `annofree pseudo-label` wrote.", show_default=False)
]
TuningLabels = Annotated[
    Path | None, typer.Option("--labels", help="A COCO file with masks, or what `annofree pseudo-label` wrote.")
]
Corrections = Annotated[
    Path | None,
    typer.Option(help="A run, or a workspace of `annofree serve`: learn from the images that people corrected there."),
]
ImageRoot = Annotated[Path | None, typer.Option("--images", help="The folder that its file names count from.")]
Fraction = Annotated[float, typer.Option(help="Share of the images to learn from, over 0, up to 1.")]
SplitSeed = Annotated[int, typer.Option(help="Random seed that chooses this share.", min=0)]
Agnostic = Annotated[bool, typer.Option(help="Learn all names as one, object.")]
TuningSteps = Annotated[
    int | None,
    typer.Option(
        "--steps", help="Total steps; else those of Zip for this share. The learning-rate schedule is rescaled.", min=1
    ),
]
ScenesPerStep = Annotated[int, typer.Option("--batch", help="Scenes per step, over all processes.", min=1)]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Learning rate; else that of the schedule, in proportion to the batch.", min=0)
]
Bf16 = Annotated[bool, typer.Option(help="Compute in half precision.")]
Workers = Annotated[int, typer.Option(help="Processes that make scenes ahead.", min=0)]
SampleEvery = Annotated[int, typer.Option(help="Steps between drawn samples; 0 for none.", min=0)]
ModelName = Annotated[str, typer.Option("--name", help="The name on the model's card.")]
Checkpoint = Annotated[
    Path,
    typer.Argument(help="The folder that `annofree train detector` wrote.", show_default=False, metavar="CHECKPOINT"),
]
ModelFile = Annotated[Path, typer.Option("--out", help="The file to write, such as model.onnx.", show_default=False)]
ModelFormat = Annotated[Literal["onnx"], typer.Option("--to", help="The format.")]
Check = Annotated[
    Path | None, typer.Option(help="Images, a file or a folder, to compare the two on (the first 20); else noise.")
]

# SelfMask

ImageFolder = Annotated[Path | None, typer.Option("--images", help="Train on the images of this folder.")]
World = Annotated[str | None, typer.Option(help="Train on rendered scenes: emoji.")]
Count = Annotated[int, typer.Option(help="Scenes to render, with --world.", min=1)]
Sources = Annotated[
    str, typer.Option(help="Features that vote, joined by commas: dino, boundaries and dense (a CLIP's), colour.")
]
Preset = Annotated[str, typer.Option("--models", help="The preset that has the sources' models.")]
OtherDino = Annotated[Path | None, typer.Option("--dino", help="The folder of a DINO; overrides the preset's.")]
FromDino = Annotated[bool, typer.Option("--from-dino", help="Initialize the encoder with --dino's weights, too.")]
Cells = Annotated[int, typer.Option(help="Most cells of an image that a source tells apart.", min=16)]
Side = Annotated[int, typer.Option(help="Side in px to which images are resized for training.", min=32)]
Queries = Annotated[int, typer.Option(help="Queries of the decoder.", min=1)]
Rate = Annotated[float | None, typer.Option(help="Learning rate; the original's, to fine-tune DINO, is 6e-6.")]
RankingLoss = Annotated[
    Literal["paper", "released", "official"],
    typer.Option("--order", help="The ranking loss: as in the paper, its order as released, or all as released (official)."),
]
Exam = Annotated[int, typer.Option(help="Scenes of each split to evaluate on, with --world.", min=1)]

# the tiny models

Minutes = Annotated[
    float | None, typer.Option(help="Stop after this many minutes; with more of them it is resumed.", min=0.01, max=525_600)
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Images to learn from; else as many as fit the time that is told above. Rescales the learning-rate schedule.",
        min=1,
    ),
]
Paced = Annotated[
    bool,
    typer.Option(
        "--paced", help="Let the learning rate fall with --minutes, not with samples, which are then as many as come; for GPUs."
    ),
]
Pool = Annotated[int | None, typer.Option(help="Images rendered ahead.", min=8)]
DinoFolder = Annotated[
    Path, typer.Option("--dino", help="The folder of a DINO, such as `annofree train tiny-dino` makes.", show_default=False)
]
Refine = Annotated[Literal["pamr", "none"], typer.Option(help="Refine training targets to the edges of their image.")]
Control = Annotated[bool, typer.Option(help="Do the same on random weights and report that, too.")]
