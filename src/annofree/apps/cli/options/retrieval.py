"""Options of the commands from images to archives with masks: index, retrieve and mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "ArchiveFolder",
    "ArchiveSheet",
    "Batch",
    "By",
    "Classes",
    "ClassesFile",
    "Clip",
    "ClipOfIndex",
    "IndexFolder",
    "IndexedImages",
    "LeastCosine",
    "MaskBatch",
    "MaskSheet",
    "MaskWeights",
    "NewArchive",
    "NewIndex",
    "OtherRoot",
    "PerName",
    "Preset",
    "Probes",
    "Refine",
    "SearchMethod",
    "Shard",
    "Side",
    "Templates",
    "Threads",
    "Unique",
    "Whole",
]

# index

IndexedImages = Annotated[
    list[Path],
    typer.Argument(help="Folders, lists of paths (.txt), tars or images.", metavar="IMAGES", show_default=False),
]
NewIndex = Annotated[
    Path, typer.Option("--out", help="The folder to write to; a run stopped there is resumed.", show_default=False)
]
Clip = Annotated[
    str,
    typer.Option(
        "--models", help="A CLIP, or a preset for its CLIP, as `annofree models list` has them; tiny knows emoji only."
    ),
]
Whole = Annotated[
    Literal["squash", "crop"] | None,
    typer.Option(help="How an image becomes a square: all of it, or its middle; else as the model is used."),
]
Batch = Annotated[int, typer.Option(help="Images embedded at once.", min=1)]
Shard = Annotated[int, typer.Option(help="Images a shard; a kill loses less than one shard.", min=1)]
Threads = Annotated[int, typer.Option(help="Images read at once.", min=1)]

# retrieve

IndexFolder = Annotated[
    Path, typer.Argument(help="What `annofree index` made, or a folder of clip-retrieval.", metavar="INDEX", show_default=False)
]
NewArchive = Annotated[Path, typer.Option("--out", help="The folder to write the archive to.", show_default=False)]
Classes = Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')]
ClassesFile = Annotated[Path | None, typer.Option(help="A text file with one such name a line.")]
PerName = Annotated[int, typer.Option("--k", help="Images a name.", min=1)]
SearchMethod = Annotated[
    Literal["exact", "faiss"], typer.Option(help="Look at every image, or at the likely ones only (annofree[faiss]).")
]
Probes = Annotated[int, typer.Option(help="For faiss: how many of its lists to look into.", min=1)]
Unique = Annotated[bool, typer.Option(help="Drop images whose embedding an earlier one has.")]
LeastCosine = Annotated[float | None, typer.Option("--min-score", help="Drop images of a lower cosine.")]
ClipOfIndex = Annotated[
    str | None,
    typer.Option("--models", help="The CLIP that made the index, where the index does not say so (clip-retrieval)."),
]
Templates = Annotated[
    str | None, typer.Option(help="A set of prompts: ensemble (85), imagenet, photo, name, ...; else the model's own.")
]
OtherRoot = Annotated[
    Path | None, typer.Option("--images", help="The folder that ids count from, if it was moved or is not known.")
]
ArchiveSheet = Annotated[int, typer.Option("--sheet", help="Images on the contact sheet of each name; 0 for no sheets.", min=0)]

# mask

ArchiveFolder = Annotated[
    Path, typer.Argument(help="The folder that `annofree retrieve` wrote.", metavar="ARCHIVE", show_default=False)
]
By = Annotated[
    Literal["selfmask", "found", "found-bkg", "tokencut", "maskcut", "voted"] | None,
    typer.Option(help="What says where the object is.  [default: found-bkg; selfmask with --weights]", show_default=False),
]
Preset = Annotated[
    str,
    typer.Option("--models", help="The preset that has DINO and the saliency head, as `annofree models list` has them."),
]
MaskWeights = Annotated[
    Path | None,
    typer.Option("--weights", help="For selfmask: a folder of `annofree train selfmask`, or a file of released weights."),
]
Refine = Annotated[Literal["none", "pamr"], typer.Option(help="Refine masks to the edges of their image.")]
Side = Annotated[
    int | None, typer.Option(help="For selfmask: resize the short side to this many px (ZUTIS: 512); else as its card says.")
]
MaskBatch = Annotated[int, typer.Option("--batch-size", help="Images looked at together.", min=1)]
MaskSheet = Annotated[int, typer.Option("--sheet", help="Overlays on the sheet of each name; 0 for no sheets.", min=0)]
