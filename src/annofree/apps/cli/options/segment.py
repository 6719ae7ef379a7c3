"""Options of ``segment`` and ``relabel``: what is asked for, how it is found, and how the run goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import limit_to
from annofree.apps.cli.options.common import OUTPUT

__all__ = [
    "OUT",
    "Bank",
    "BankOf",
    "BatchSize",
    "ClassNames",
    "ClassesFile",
    "Detector",
    "Images",
    "KeepEncodings",
    "Limit",
    "Method",
    "MinScore",
    "Models",
    "Negatives",
    "Objectness",
    "Overlaps",
    "Overlays",
    "Policy",
    "Precision",
    "Presence",
    "Retry",
    "RunOut",
    "Shard",
    "Stuff",
    "TaskNames",
]

OUT = Path("out")
_CLASSES, _METHOD, _RUN = "Classes and tasks", "Method", "Run"

Images = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders of them, quoted globs, .txt lists of paths, tars, file:// and s3:// URLs.",
        metavar="INPUT",
        show_default=False,
    ),
]
ClassNames = Annotated[
    str | None, typer.Option(help='Class names, such as "dog, cat: kitten | tabby, traffic light".', rich_help_panel=_CLASSES)
]
ClassesFile = Annotated[
    Path | None, typer.Option(help="A text file with one such class name a line.", rich_help_panel=_CLASSES)
]
TaskNames = Annotated[
    str,
    typer.Option(help="instance, semantic, panoptic, or several joined by commas.", rich_help_panel=_CLASSES),
]
Stuff = Annotated[
    str | None,
    typer.Option(help="Classes to treat as stuff in panoptic maps (no instances), such as sky.", rich_help_panel=_CLASSES),
]
Negatives = Annotated[
    str | None,
    typer.Option(
        help="Distractor classes, such as wall, floor: they compete with the classes and are dropped from the output.",
        rich_help_panel=_CLASSES,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="The method, the folder of a trained detector, NamedMask or archive (ReCo), or two methods joined by + for the "
        "tasks each can do; by default "
        "the preset's own: consensus with tiny, zip (instances) and clip_diy (label maps) with others.",
        rich_help_panel=_METHOD,
    ),
]
Models = Annotated[
    str,
    typer.Option(
        help="A preset, or models joined by +, as `annofree models list` has them; tiny knows emoji only.",
        rich_help_panel=_METHOD,
    ),
]
Objectness = Annotated[
    str,
    typer.Option(
        help="Foreground map for clip_diy, masks for mask_crops: found, found-bkg, tokencut, maskcut, cutler (the models' "
        "detector), instances, none, or a detector's folder, a run, or a COCO file.",
        rich_help_panel=_METHOD,
        **limit_to("found", "found-bkg", "tokencut", "maskcut", "cutler", "instances", "none") | {"metavar": "SOURCE"},
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        help="Which instances are returned: answer, those that the models are sure of; all, the whole ranking.",
        rich_help_panel=_METHOD,
        **limit_to("answer", "all"),
    ),
]
Overlaps = Annotated[
    str | None,
    typer.Option(
        help="Which of two overlapping instances stays, such as within=0.5, across=0.8, inside=0.9, inside-across=0.95, "
        "prefer=whole; by default what the method does.",
        rich_help_panel=_METHOD,
    ),
]
Detector = Annotated[
    Path | None,
    typer.Option(
        help="A detector of your own for methods that take one, such as consensus; without --method, open_vocabulary where "
        "the preset's own takes none. CLIP names what it did not learn.",
        rich_help_panel=_METHOD,
    ),
]
MinScore = Annotated[float, typer.Option(help="Drop instances that score less.", min=0, max=1, rich_help_panel=_METHOD)]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the image encoders of CLIP and SAM; others than float32 change answers a little.",
        rich_help_panel=_METHOD,
        **limit_to("float32", "bfloat16", "float16"),
    ),
]
Bank = Annotated[
    bool,
    typer.Option(
        "--bank",
        help="Let what is told surely elsewhere in the run name and weigh what looks like it.",
        rich_help_panel=_METHOD,
    ),
]
BankOf = Annotated[
    Path | None,
    typer.Option(
        help="Likewise, by what another run of --keep-encodings tells, of the same models, or by an archive with masks.",
        rich_help_panel=_METHOD,
    ),
]
Presence = Annotated[
    str,
    typer.Option(
        help="How to tell whether a class is in an image at all: fixed, by the method's threshold; folder, against all images, "
        "for many names of which each is in few.",
        rich_help_panel=_METHOD,
        **limit_to("fixed", "folder"),
    ),
]
RunOut = Annotated[Path, typer.Option(help="The output folder; the same command resumes there.", rich_help_panel=OUTPUT)]
Overlays = Annotated[bool, typer.Option(help="Draw what was found over the images.", rich_help_panel=OUTPUT)]
KeepEncodings = Annotated[
    bool, typer.Option(help="Keep what `annofree relabel` needs to ask for other names.", rich_help_panel=OUTPUT)
]
Retry = Annotated[bool, typer.Option(help="Try images again that failed before.", rich_help_panel=_RUN)]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="Process shard I of N (images are dealt out in chunks of about 64).", rich_help_panel=_RUN
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Images encoded at once; by default 4, and 1 on a CPU with models of more than 100 MB.",
        min=1,
        rich_help_panel=_RUN,
    ),
]
Limit = Annotated[int | None, typer.Option(help="Process the first N images only.", min=1, rich_help_panel=_RUN)]
