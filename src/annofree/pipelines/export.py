"""The instances of a run, in the format of another tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.io.regular import require_regular

if TYPE_CHECKING:
    from annofree.formats.annotations import AnnotatedImages
    from annofree.formats.round_trip import Fidelity

__all__ = ["export"]


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: str,  # noqa: A002 -- the word of the option
    images: str = "none",
    image_root: str | Path | None = None,
    corrections: bool = True,
    callbacks: Callbacks = Callbacks(),
) -> Fidelity:
    """Write a run's instances in another tool's format, read them back, and return what the format could not hold.

    ``run`` is the folder of a run, or the workspace of ``annofree serve``, and ``out`` a new or empty one.  What people
    corrected there takes the place of what the machine said, unless ``corrections`` are left out; a note tells of it.
    ``images`` is none, copy or link: what is done with the images of ``image_root``, the folder that the run was given.
    Progress counts each image twice: written, and compared.  Raises InputError for an unknown format, a run without instances,
    and a folder that cannot be written to; then nothing is written.

    >>> export("examples", "exported", format="coko")
    Traceback (most recent call last):
    annofree.errors.InputError: unknown format 'coko'; did you mean 'coco'? Known: ...
    """
    from annofree.formats.registry import export as write
    from annofree.formats.registry import find_format

    find_format(format)  # before anything is read
    root = None if image_root is None else Path(image_root)
    found = _corrected(Path(run), callbacks) if corrections and _has_corrections(Path(run)) else _instances(Path(run))
    return write(found, format, Path(out), images=images, image_root=root, on_progress=callbacks.on_progress)  # type: ignore[arg-type]  # it checks


def _has_corrections(run: Path) -> bool:
    """Whether people corrected something there; a workspace without a run has nothing else."""
    from annofree.runs.corrections.answers import find_workspace
    from annofree.runs.corrections.journal import has_corrections

    alone = not (run / "annotations.json").is_file() and (find_workspace(run) / "workspace.json").is_file()
    return alone or has_corrections(run)


def _corrected(run: Path, callbacks: Callbacks) -> AnnotatedImages:
    from annofree.runs.corrections.labels import read_corrected
    from annofree.runs.store.finals import require_unchanged

    require_unchanged(run, "annotations.json", "run.json")
    corrected = read_corrected(run, {"model_version": _model_version(run / "run.json")})
    told = corrected.images.info["corrections"]
    callbacks.on_note(
        f"with what {', '.join(told['who']) or 'nobody'} corrected: {told['reviewed']} images reviewed, "
        f"{told['instances']} instances decided on"
    )
    return corrected.images


def _instances(run: Path) -> AnnotatedImages:
    """Open the annotations of a run, with the name of what made them."""
    from annofree.formats.registry import read_run
    from annofree.runs.store.finals import require_unchanged

    place = run / "annotations.json"
    if not place.is_file() and (run / "serve" / "workspace.json").is_file():
        raise InputError(f"expected a run, got the workspace {run}, which no run made; leave --no-corrections out")
    if not place.is_file():
        hint = "; its label maps in labels/ are index PNGs as they are" if (run / "labels").is_dir() else ""
        raise InputError(f"expected the instances of a run at {place}, and there are none{hint}; run --task instance first")
    require_unchanged(run, place.name, "run.json")
    return read_run(place, {"model_version": _model_version(run / "run.json")})


def _model_version(place: Path) -> str:
    """Name method and models, as run.json has them."""
    try:
        settings: dict[str, Any] = json.loads(require_regular(place).read_text(encoding="utf-8"))["settings"]
        return f"annofree {settings['methods']['instance']} {settings['variant']} ({settings['models']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "annofree"  # a run that was cut short, or of another version, is still a run
