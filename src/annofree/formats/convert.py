"""Annotations of one tool, in the format of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from annofree.io.callbacks import Callbacks

if TYPE_CHECKING:
    from annofree.formats.round_trip import Fidelity

__all__ = ["convert"]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    from_: str,
    to: str,
    images: str = "none",
    image_root: str | Path | None = None,
    skip_unsupported: bool = False,
    callbacks: Callbacks = Callbacks(),
) -> Fidelity:
    """Convert annotations, read the result back, and return what the format could not hold.

    ``source`` is a file, or the folder that has the annotations; ``out`` a new or empty folder; ``from_`` and ``to`` are names
    of formats.  ``images`` is none, copy or link: what is done with the images of ``image_root``, which is needed for that and
    for the sizes of images from YOLO.  What the reader passes over is counted and named in the report; objects that cannot be
    read, such as circles, are an InputError that names them, or with ``skip_unsupported`` passed over too.  Progress counts
    each image twice: written, and compared.  Raises InputError for an unknown format, annotations that cannot be read, and a
    folder that cannot be written to; then nothing is written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = convert("examples/validation/truth.json", f"{folder}/cvat", from_="coco", to="cvat")
    >>> report.losses
    ['category ids, numbered anew']
    """
    from annofree.formats.passed_over import PassedOver
    from annofree.formats.registry import export, find_format, read

    root = None if image_root is None else Path(image_root)
    for name in (from_, to):
        find_format(name)  # before anything is read
    passed = PassedOver(skip_unsupported)
    file = read(from_, Path(source), root, passed)
    how = {"images": images, "image_root": root, "on_progress": callbacks.on_progress, "passed": passed}
    return export(file, to, Path(out), **how)  # type: ignore[arg-type]  # it checks
