"""``annofree export``: a run's instances in the format of another tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.help import one_of
from annofree.apps.cli.progress import progress
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.formats.annotations import Pictures

__all__ = ["export"]

_FORMATS = "coco, coco-polygons, yolo-seg, yolo-det, voc, png, labelme, label-studio or cvat; see docs/formats.md."


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", show_default=False)],
    format_: Annotated[str, typer.Option("--format", help=_FORMATS, show_default=False)],
    out: Annotated[Path, typer.Option(help="A new or empty folder to write to.", show_default=False)],
    images: Annotated[
        str,
        typer.Option(
            help="What becomes of the pictures; with none they stay.",
            **one_of("none", "copy", "link"),
        ),
    ] = "none",
    image_root: Annotated[
        Path | None, typer.Option(help="The folder of pictures that the run was given; needed to copy or link them.")
    ] = None,
) -> None:
    """Write a run's instances in another tool's format, read them back, and say what the format could not hold.

    Exit code 0: written, whether or not something was lost; 2: the call was wrong, and nothing was written.

    Example: annofree export out --format yolo-seg --out yolo
    """
    from annofree.formats.registry import export as write
    from annofree.formats.registry import format_named

    format_named(format_)  # before anything is read
    with progress("images written and read back") as show:
        report = write(_instances(run), format_, out, images=images, image_root=image_root, on_progress=show)  # type: ignore[arg-type]  # it checks
    print(f"{report.table()}\nwritten: {out}")


def _instances(run: Path) -> Pictures:
    """The annotations of a run, with the name of what made them."""
    from annofree.formats.registry import read_run

    place = run / "annotations.json"
    if not place.is_file():
        hint = "; its label maps in labels/ are index PNGs as they are" if (run / "labels").is_dir() else ""
        raise InputError(f"expected the instances of a run at {place}, and there are none{hint}; run --task instance first")
    return read_run(place, {"model_version": _model_version(run / "run.json")})


def _model_version(place: Path) -> str:
    """Name method and models, as run.json has them."""
    try:
        settings: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))["settings"]
        return f"annofree {settings['methods']['instance']} {settings['variant']} ({settings['models']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "annofree"  # a run that was cut short, or of another version, is still a run
