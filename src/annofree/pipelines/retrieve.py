"""An index and names in, an archive of the images that fit each name out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError, build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks

if TYPE_CHECKING:
    from annofree.protocols import VisionLanguage
    from annofree.retrieval.archive import Archive
    from annofree.retrieval.index import Index
    from annofree.structures import Vocabulary

__all__ = ["SEARCHES", "Retrieval", "retrieve"]

SEARCHES = ("exact", "faiss")
"""How an index is searched: every image of it, or the likely ones only."""


@dataclass(frozen=True)
class Retrieval:
    """An archive, the folder that it was written to, and why images of its contact sheets could not be read, by id."""

    archive: Archive
    folder: Path
    failed: Mapping[str, str]


def retrieve(
    index: str | Path,
    out: str | Path,
    *,
    classes: str | Iterable[str] | Vocabulary | None = None,
    classes_file: str | Path | None = None,
    k: int = 500,
    method: str = "exact",
    probes: int = 32,
    unique: bool = False,
    min_score: float | None = None,
    models: str | None = None,
    templates: str | None = None,
    images: str | Path | None = None,
    sheet: int = 24,
    device: str = "auto",
    callbacks: Callbacks = Callbacks(),
) -> Retrieval:
    """Retrieve the ``k`` images of an index that fit each name best; write archive.json and a contact sheet a name.

    ``classes`` are the names, or ``classes_file`` has one a line.  ``method`` is exact, or faiss, which looks into ``probes``
    of its lists alone.  ``unique`` drops images whose embedding an earlier one has, ``min_score`` those of a lower cosine.
    ``models`` is the CLIP that made the index, where the index does not say so; ``templates`` a set of prompts; ``images`` the
    folder that ids count from, if it was moved; ``sheet`` the images on each contact sheet.  Raises InputError for a folder
    that is no index, for no names, and for another CLIP than that of the index.

    >>> retrieve("examples", "archive", classes="dog")
    Traceback (most recent call last):
    annofree.errors.InputError: expected an index...
    """
    for name, value, least in (("k", k, 1), ("probes", probes, 1), ("sheet", sheet, 0)):
        check_range(name, value, least)
    check_range("min_score", min_score, -1, 1)
    if method not in SEARCHES:
        raise build_unknown_error("retrieval method", method, SEARCHES)
    from annofree.io.class_names import read_vocabulary
    from annofree.retrieval.open_index import open_index

    vocabulary = read_vocabulary(classes, classes_file)
    opened = open_index(Path(index), root=None if images is None else Path(images))
    asked, notes = _without_background(vocabulary)
    clip = _clip(opened, models, device, templates)
    notes += clip.remarks(asked)
    for note in notes:
        callbacks.on_note(note)
    from annofree.retrieval.archive_sheets import write_sheets
    from annofree.retrieval.search import retrieve as search

    archive = search(
        opened,
        clip,
        asked,
        k,
        method=method,
        probes=probes,
        unique=unique,
        min_score=min_score,
        on_progress=callbacks.on_progress,
    )
    archive.about.update({"templates": templates, "remarks": notes})
    archive.write(Path(out))
    callbacks.on_stage("sheets", "")
    return Retrieval(archive, Path(out), write_sheets(archive, Path(out) / "sheets", sheet, callbacks.on_progress))


def _without_background(vocabulary: Vocabulary) -> tuple[Vocabulary, list[str]]:
    """Leave out the background, of which there are no images to retrieve, and say so."""
    from annofree.structures import BACKGROUND, Vocabulary

    things = [words for words in vocabulary.synonyms if words[0].lower() != BACKGROUND]
    if not things:
        raise InputError(f"expected names of things to retrieve, got {BACKGROUND!r} alone")
    notes = [f"{BACKGROUND} is no thing and was left out"] if len(things) < len(vocabulary) else []
    return Vocabulary.from_entries(things), notes


def _clip(index: Index, models: str | None, device: str, templates: str | None) -> VisionLanguage:
    """Load the CLIP that made an index; raises InputError where it is not known, and for another one."""
    from annofree.methods.load_clip import load_clip

    spec = models or index.manifest.get("about", {}).get("models")
    if spec is None:
        raise InputError(f"expected the CLIP that made {index.folder}, which does not say it; name it with --models")
    clip = load_clip(spec, device, {})
    for what in ("sha256", "name") if index.model else ():
        before, now = index.model.get(what), json.loads(json.dumps(clip.provenance.get(what)))
        if before != now:
            raise InputError(f"expected the model that made {index.folder}, but its {what} was {before!r}, now it is {now!r}")
    return clip if templates is None else clip.with_prompts(templates)
