"""``annofree convert``: annotations from one tool's format to another's, ground truth too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.help import one_of
from annofree.apps.cli.progress import progress

__all__ = ["convert"]

_FORMATS = "coco, coco-polygons, yolo-seg, yolo-det, voc, png, labelme, label-studio or cvat"


def convert(
    source: Annotated[
        Path, typer.Argument(help="The annotations: a file, or the folder that has them.", metavar="SOURCE", show_default=False)
    ],
    from_: Annotated[str, typer.Option("--from", help=f"Their format: {_FORMATS}.", show_default=False)],
    to: Annotated[str, typer.Option(help="The format to write, one of the same.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new or empty folder to write to.", show_default=False)],
    images: Annotated[
        str,
        typer.Option(
            help="What becomes of the pictures; with none they stay.",
            **one_of("none", "copy", "link"),
        ),
    ] = "none",
    image_root: Annotated[
        Path | None, typer.Option(help="The folder of the pictures; needed to copy or link them, and for sizes from YOLO.")
    ] = None,
) -> None:
    """Convert annotations, read the result back, and say what the format could not hold.

    Exit code 0: written, whether or not something was lost; 2: the call was wrong, and nothing was written.

    Example: annofree convert truth.json --from coco --to cvat --out cvat
    """
    from annofree.formats.registry import export, format_named, read

    for name in (from_, to):
        format_named(name)  # before anything is read
    file = read(from_, source, image_root)
    with progress("images written and read back") as show:
        report = export(file, to, out, images=images, image_root=image_root, on_progress=show)  # type: ignore[arg-type]  # it checks
    print(f"{report.table()}\nwritten: {out}")
