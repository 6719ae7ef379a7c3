"""Merging of the parts of a run that was split with ``--shard i/n``.

Files are copied, so parts made on other machines differ from a single run up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.files.checksums import measure_file
from annofree.io.files.paths import confine, copy_file
from annofree.io.settings_diff import list_differences
from annofree.runs.clock import StageTimer, Timings
from annofree.runs.config import name_encodings_file
from annofree.runs.run import finish_run
from annofree.runs.store.chunks import RESULTS, Chunk, Chunks, Row, settle
from annofree.runs.store.disk import explain_write_errors
from annofree.runs.store.finals import require_unchanged
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.summary import read_about

__all__ = ["merge_runs"]

_FREE = ("part",)
_OF_ONE = ("command", "shard", "timings", "failed", "instances", "shares")  # in run.json


def merge_runs(
    parts: Sequence[Path],
    out: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    clock: StageTimer | None = None,
) -> dict[str, Any]:
    """Join runs into a folder, copying their files, and return what its run.json holds.

    Its seconds are those of all parts and of merging, which ``clock`` may already be counting.

    The runs have equal settings and images, are complete, and have each image once between them.  Raises InputError that
    names the difference, the image that is missing or that two runs have, and a folder that is another run's.
    """
    sources = [_complete(part) for part in parts]
    _check_target(sources, out)
    _check_equal(sources)
    whole = sorted(((_first(s, shard), s, shard) for s in sources for shard in s.list_whole().values()), key=lambda t: t[0])
    ids = sources[0].read_ids()
    _check_all(whole, ids, sources)
    clock = clock or StageTimer.started()
    settings = sources[0].read_settings()
    settings["asked"] = settings["asked"] | {"part": "1/1"}
    asked, names = settings["asked"], [words[0] for words in settings["asked"]["classes"]]
    wanted, stuff = asked["tasks"], asked["stuff"]
    folder, target = RunFolder.create(out, names, tasks=wanted, stuff=stuff), Chunks(out)
    with target.hold():
        with explain_write_errors(out):
            if target.cleared:
                target.clear()
            _start(target, settings, ids)
            for environment in (one for source in sources for one in source.environments):
                target.record_environment(environment)
            clock.switch("write")
            on_progress(0, len(whole))
            for number, (_, source, shard) in enumerate(whole):
                _copy(source, shard, target, number)
                on_progress(number + 1, len(whole))
            for source in sources:
                target.append({"seconds": _summed(source)})
            _copy_classes(sources, out)
        run = read_about(parts[0])
        about = {k: v for k, v in run.items() if k not in _OF_ONE}
        return finish_run(target, folder, wanted, about | {"merged": [str(part) for part in parts]}, clock)


def _complete(part: Path) -> Chunks:
    shards = Chunks(part)
    shards.require_begun()
    shards.require_complete()
    shards.require_whole()
    require_unchanged(part, "labels/classes.json")  # it is copied; the other files of all images are written anew
    return shards


def _check_target(sources: Sequence[Chunks], out: Path) -> None:
    for source in sources:
        if source.out.resolve() == out.resolve():
            raise InputError(f"expected another folder to write to than {out}, which is one of the runs; choose another --out")
    Chunks(out).require_free()


def _check_equal(sources: Sequence[Chunks]) -> None:
    first = _compared(sources[0])
    for other in sources[1:]:
        said = list(list_differences(first, _compared(other)))
        images = sources[0].compare(other.read_ids())
        said += [images] if images else []
        if said:
            raise InputError(f"the runs in {sources[0].out} and {other.out} are not parts of one: {'; '.join(said)}")


def _compared(shards: Chunks) -> dict[str, Any]:
    settings = {k: v for k, v in shards.read_settings().items() if k != "device"}
    return settings | {"asked": {k: v for k, v in settings["asked"].items() if k not in _FREE}}


def _first(source: Chunks, shard: Chunk) -> int:
    return int(next(source.read_rows_of(shard))["n"])


def _check_all(whole: Iterable[tuple[int, Chunks, Chunk]], ids: Sequence[str], sources: Sequence[Chunks]) -> None:
    due = 0
    for first, source, shard in whole:
        _check_due(first, due, ids, sources, source)
        for row in source.read_rows_of(shard):
            for place in _places(source.out, row):
                _check_place(source.out, place)
            _check_due(row["n"], due, ids, sources, source)
            due += 1
    if due < len(ids):
        _check_due(len(ids), due, ids, sources, sources[0])


def _check_due(number: int, due: int, ids: Sequence[str], sources: Sequence[Chunks], source: Chunks) -> None:
    if number > due:
        parts = ", ".join(s.read_settings()["asked"]["part"] for s in sources)
        raise InputError(f"expected all parts of the run, but none of {parts} has {ids[due]} (image {due + 1}); name the rest")
    if number < due:
        raise InputError(f"expected each part once, but {ids[number]} is in {source.out} and in another; leave one out")


def _start(target: Chunks, settings: dict[str, Any], ids: Sequence[str]) -> None:
    """Start: leftovers of an earlier merge are overwritten; any other run is refused."""
    if target.begun:
        said = [*list_differences(target.read_settings(), settings), *filter(None, [target.compare(ids)])]
        if said:
            raise InputError(f"the run in {target.out} was asked for something else: {'; '.join(said)}; choose another --out")
    target.clean()
    target.begin(settings, ids)


def _copy(source: Chunks, shard: Chunk, target: Chunks, number: int) -> None:
    rows = list(source.read_rows_of(shard))
    copied = [_copy_file(source.out, target.out, place) for row in rows for place in _places(source.out, row)]
    files = {}
    kept = name_encodings_file(source.out, shard.number)
    if kept.exists():
        copied.append(name_encodings_file(target.out, number))
        _copied(kept, copied[-1])
        files = {copied[-1].relative_to(target.out).as_posix(): measure_file(copied[-1])}
    settle(copied)
    about = {k: v for k, v in shard.about.items() if k != "seconds"}  # the whole part's are told once
    target.close(number, rows, about, files)


def _summed(source: Chunks) -> dict[str, float]:
    """The seconds of all calls that made a part."""
    timings = Timings.summed(0, 0, source.read_seconds())
    return {"total": timings.total, **timings.seconds}


def _places(folder: Path, row: Row) -> list[str]:
    """The files of an image."""
    image = row.get("image", {})
    named = [image[key] for key in ("overlay", "labels", "panoptic") if key in image]
    if "labels" in image:
        drawn = image["labels"].replace("labels/", "overlays-semantic/", 1).removesuffix(".png") + ".jpg"
        named += [drawn] if (folder / drawn).exists() else []
    return named


def _check_place(source: Path, place: str) -> Path:
    """Return a file of the results of a run; raises InputError for any other."""
    if place.split("/")[0] not in RESULTS[1:]:
        raise InputError(f"expected a file of the results of the run in {source}, got {place!r}; make that run again")
    return confine(source, place)


def _copy_file(source: Path, target: Path, place: str) -> Path:
    path = confine(target, place)
    _copied(_check_place(source, place), path)
    return path


def _copied(source: Path, path: Path) -> None:
    try:
        copy_file(source, path)
    except FileNotFoundError:
        raise InputError(f"expected {source}, which its run wrote, and it is not there; make that run again") from None


def _copy_classes(sources: Sequence[Chunks], out: Path) -> None:
    for source in sources:
        if (source.out / "labels" / "classes.json").exists():
            _copy_file(source.out, out, "labels/classes.json")
            return
