"""``annofree export``: a run's instances in the format of another tool."""

from __future__ import annotations

from annofree.apps.cli.options.common import RunFolder
from annofree.apps.cli.options.files import Corrections, Format, ImageRoot, Images, NewFolder
from annofree.apps.cli.progress import show_progress
from annofree.io.text import clean_text
from annofree.pipelines import export as pipeline

__all__ = ["export"]


def export(
    run: RunFolder,
    format_: Format,
    out: NewFolder,
    images: Images = "none",
    image_root: ImageRoot = None,
    corrections: Corrections = True,
) -> None:
    """Write a run's instances in another tool's format, read them back, and say what the format could not hold.

    Exit code 0: written, whether or not something was lost; 2: the call was wrong, and nothing was written.

    Example: annofree export out --format yolo-seg --out yolo
    """
    with show_progress("images written and read back") as show:
        report = pipeline.export(
            run, out, format=format_, images=images, image_root=image_root, corrections=corrections, callbacks=show.callbacks
        )
    print(clean_text(f"{report.as_table()}\nwritten: {out}", lines=True))
