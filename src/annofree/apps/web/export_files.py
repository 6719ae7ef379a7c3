"""The corrected labels of a page as a file to download."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from annofree.apps.web.workspace import Workspace
from annofree.formats.registry import export, find_format
from annofree.runs.corrections.labels import read_corrected

__all__ = ["Export", "make_export"]

_ALONE = {"coco": "annotations.json", "coco-polygons": "annotations.json"}


@dataclass(frozen=True)
class Export:
    """A file that is made, its ``name`` and ``kind`` for a browser; it is removed with its ``folder``."""

    path: Path
    name: str
    kind: str
    folder: Path

    def remove(self) -> None:
        """Remove the file."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_export(workspace: Workspace, format_name: str) -> Export:
    """Write the labels of a workspace in a format; a folder becomes a zip."""
    find_format(format_name)
    folder = Path(tempfile.mkdtemp(prefix="annofree-export-"))
    try:
        corrected = read_corrected(workspace.opening.folder, {"model_version": "annofree"})
        export(corrected.images, format_name, folder / "labels")
        if format_name in _ALONE:
            return Export(folder / "labels" / _ALONE[format_name], "annotations.json", "application/json", folder)
        packed = folder / "labels.zip"
        _zip(folder / "labels", packed)
        return Export(packed, f"labels-{format_name}.zip", "application/zip", folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _zip(folder: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as out:
        for path in sorted(filter(partial(Path.is_file), folder.rglob("*"))):
            out.write(path, path.relative_to(folder).as_posix())
