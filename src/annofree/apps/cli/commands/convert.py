"""``annofree convert``: annotations from one tool's format to another's, ground truth too."""

from __future__ import annotations

from annofree.apps.cli.options.files import From, ImageRoot, Images, NewFolder, SkipUnsupported, Source, To
from annofree.apps.cli.progress import show_progress
from annofree.formats import convert as formats
from annofree.io.text import clean_text

__all__ = ["convert"]


def convert(
    source: Source,
    from_: From,
    to: To,
    out: NewFolder,
    images: Images = "none",
    image_root: ImageRoot = None,
    skip_unsupported: SkipUnsupported = False,
) -> None:
    """Convert annotations, read the result back, and say what was passed over and what the format could not hold.

    Exit code 0: written, whether or not something was lost; 2: the call was wrong, and nothing was written.

    Example: annofree convert truth.json --from coco --to cvat --out cvat
    """
    with show_progress("images written and read back") as show:
        report = formats.convert(
            source,
            out,
            from_=from_,
            to=to,
            images=images,
            image_root=image_root,
            skip_unsupported=skip_unsupported,
            callbacks=show.callbacks,
        )
    print(clean_text(f"{report.as_table()}\nwritten: {out}", lines=True))
