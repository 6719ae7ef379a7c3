"""What ``annofree index``, ``retrieve`` and ``mask`` print, as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from annofree.apps.cli.summary import describe_timings, pick_timings

if TYPE_CHECKING:
    from annofree.pipelines.build_index import IndexSummary
    from annofree.pipelines.mask_archive import MaskSummary
    from annofree.pipelines.retrieve import Retrieval

__all__ = ["format_retrieval", "index_summary", "index_text", "mask_summary", "mask_text", "summarize_retrieval"]

_OF_INDEX = ("inputs", "rows", "dimension", "failed", "model")


def index_summary(made: IndexSummary) -> dict[str, Any]:
    """What is in an index, and how long it took."""
    return {**{key: made.manifest[key] for key in _OF_INDEX}, "timings": pick_timings(made.timings.as_dict())}


def index_text(made: IndexSummary) -> str:
    """The same in words."""
    counts = f"{made.manifest['rows']} of {made.manifest['inputs']} images, D = {made.manifest['dimension']}"
    return f"{counts}; {describe_timings(made.timings.as_dict())}\nwritten: {made.folder}"


def summarize_retrieval(made: Retrieval) -> dict[str, Any]:
    """How many images were found of each name, and how."""
    archive = made.archive
    return {"pictures": len(archive), "found": _found(made), "failed": made.failed, "about": archive.about}


def format_retrieval(made: Retrieval) -> str:
    """The same in words."""
    about, found, out = made.archive.about, _found(made), made.folder
    few = [f"{name} {count}" for name, count in found.items() if count < about["k"]]
    counts = f"{len(made.archive)} images for {len(found)} names, {min(found.values())} a name or more"
    lines = [f"{out}/archive.json, {out}/sheets: {counts}"]
    if few:
        lines.append(f"fewer than {about['k']}: {', '.join(few)}")
    if about["unique"]:
        lines.append(f"{about['dropped_as_repeated']} images of the index repeat earlier ones and were dropped")
    return "\n".join(lines)


def _found(made: Retrieval) -> dict[str, int]:
    return {name: len(members) for name, members in made.archive.members.items()}


def mask_summary(made: MaskSummary) -> dict[str, Any]:
    """How many masks there are, how they came about, and how long it took."""
    counts = {"pictures": made.pictures, "masks": made.masks, "known": made.known, "failed": made.failed}
    return {**counts, **made.about, "timings": pick_timings(made.timings.as_dict())}


def mask_text(made: MaskSummary) -> str:
    """The same in words."""
    time = describe_timings(made.timings.as_dict(), **({} if made.sheets is None else {"sheets": made.sheets}))
    counts = f"{made.masks} masks of {made.pictures} images ({made.known} were there)"
    return f"{counts}; {time}\nwritten: {made.folder}/masks.jsonl"
