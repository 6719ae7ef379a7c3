"""``annofree retrieve``: an index and names in, an archive of the pictures that fit each name out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from annofree.apps.cli.classes import read_classes
from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.errors import InputError
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.protocols import VisionLanguage
    from annofree.retrieval.index import Index

__all__ = ["retrieve"]

_SHOWN = 12  # failures


def retrieve(
    index: Annotated[
        Path, typer.Argument(help="What `annofree index` made, or a folder of clip-retrieval.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the archive to.", show_default=False)],
    classes: Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A text file with one such name a line.")] = None,
    k: Annotated[int, typer.Option("--k", help="Pictures a name.", min=1)] = 500,
    method: Annotated[
        Literal["exact", "faiss"], typer.Option(help="Look at every picture, or at the likely ones only (annofree[faiss]).")
    ] = "exact",
    probes: Annotated[int, typer.Option(help="For faiss: how many of its lists to look into.", min=1)] = 32,
    unique: Annotated[bool, typer.Option(help="Drop pictures whose embedding an earlier one has.")] = False,
    min_score: Annotated[float | None, typer.Option(help="Drop pictures of a lower cosine.")] = None,
    models: Annotated[
        str | None, typer.Option(help="The CLIP that made the index, where the index does not say so (clip-retrieval).")
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="A set of prompts: ensemble (85), imagenet, photo, name, ...; else the model's own.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The folder that ids count from, if it was moved or is not known.")
    ] = None,
    sheet: Annotated[int, typer.Option(help="Pictures on the contact sheet of each name; 0 for no sheets.", min=0)] = 24,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Retrieve the pictures that fit each name best; write archive.json and a contact sheet a name.

    Exit code 0: all done; 1: pictures of the sheets cannot be read and are named; 2: the call was wrong.

    Example: annofree retrieve index --classes "dog, cat" --out archive
    """
    clock, silent = command_clock(), quiet or as_json
    with progress("embeddings", silent, clock=clock) as show:
        vocabulary = Vocabulary.of(read_classes(classes, classes_file))
        from annofree.retrieval.archive_sheets import write_sheets
        from annofree.retrieval.open_index import open_index
        from annofree.retrieval.search import retrieve as best_of

        asked, notes = _without_background(vocabulary)
        opened = open_index(index, root=images)
        clip = _clip(opened, models, device, templates)
        notes += clip.remarks(asked)
        for note in [] if silent else notes:
            show.say(f"note: {note}")
        archive = best_of(
            opened,
            clip,
            asked,
            k,
            method=method,
            probes=probes,
            unique=unique,
            min_score=min_score,
            on_progress=show,
        )
    archive.about.update({"templates": templates, "remarks": notes})
    archive.write(out)
    with progress("sheets", silent) as show:
        failed = write_sheets(archive, out / "sheets", sheet, show)
    for why in list(failed.values())[:_SHOWN]:
        print(f"failed: {why}", file=sys.stderr)
    if len(failed) > _SHOWN:
        print(f"failed: {len(failed) - _SHOWN} more; say where the pictures are with --images, or --sheet 0", file=sys.stderr)
    found = {name: len(members) for name, members in archive.members.items()}
    if as_json:
        print(json.dumps({"pictures": len(archive), "found": found, "failed": failed, "about": archive.about}, indent=2))
    elif not quiet:
        print(_told(archive.about, found, len(archive), out))
    raise typer.Exit(1 if failed else 0)


def _without_background(vocabulary: Vocabulary) -> tuple[Vocabulary, list[str]]:
    """Leave out the background, of which there are no pictures to retrieve, and say so."""
    from annofree.structures import BACKGROUND, Vocabulary

    things = [words for words in vocabulary.synonyms if words[0].lower() != BACKGROUND]
    if not things:
        raise InputError(f"expected names of things to retrieve, got {BACKGROUND!r} alone")
    notes = [f"{BACKGROUND} is no thing and was left out"] if len(things) < len(vocabulary) else []
    return Vocabulary.from_entries(things), notes


def _clip(index: Index, models: str | None, device: str, templates: str | None) -> VisionLanguage:
    """Load the CLIP that made an index; raises InputError where it is not known, and for another one."""
    from annofree.apps.cli.commands.index import clip_of

    spec = models or index.manifest.get("about", {}).get("models")
    if spec is None:
        raise InputError(f"expected the CLIP that made {index.folder}, which does not say it; name it with --models")
    clip = clip_of(spec, device, {})
    for what in ("sha256", "name") if index.model else ():
        before, now = index.model.get(what), json.loads(json.dumps(clip.provenance.get(what)))
        if before != now:
            raise InputError(f"expected the model that made {index.folder}, but its {what} was {before!r}, now it is {now!r}")
    return clip if templates is None else clip.prompted(templates)


def _told(about: dict[str, Any], found: dict[str, int], pictures: int, out: Path) -> str:
    least = min(found.values())
    few = [f"{name} {count}" for name, count in found.items() if count < about["k"]]
    lines = [f"{out}/archive.json, {out}/sheets: {pictures} pictures for {len(found)} names, {least} a name or more"]
    if few:
        lines.append(f"fewer than {about['k']}: {', '.join(few)}")
    if about["unique"]:
        lines.append(f"{about['dropped_as_repeated']} pictures of the index repeat earlier ones and were dropped")
    return "\n".join(lines)
