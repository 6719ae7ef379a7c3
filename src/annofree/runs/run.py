"""A run: many images into one folder, stopped at any moment, gone on with by the same command.

On the same machine, with the same versions and threads, the result is byte-identical to an uninterrupted run.

    inputs.txt -> a stretch -> batches -> rows, and files of each image -> shard -> manifest ... -> the files of all

What was done is known by the manifest alone.  An image that was done in part is done again, and its files are replaced by
identical ones.  A run may be resumed elsewhere: results agree up to rounding, and run.json lists each environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.io.files.checksums import measure_file
from annofree.io.settings_diff import list_differences
from annofree.runs.clock import StageTimer, Timings
from annofree.runs.config import EncodingSource, RunConfig
from annofree.runs.engines.engine import Engine
from annofree.runs.executor import Executor
from annofree.runs.store.checks import FORMAT, find_damage
from annofree.runs.store.chunks import Chunks, settle
from annofree.runs.store.clearing import FINALS
from annofree.runs.store.disk import explain_write_errors
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.results import average_shares
from annofree.runs.store.summary import read_about
from annofree.runs.tasks import Tasks, TasksInfo

__all__ = ["Run", "finish_run"]

_FINALS = {"instance": "annotations.json", "panoptic": "panoptic.json", "semantic": "labels/shares.json"}


@dataclass
class Run:
    """A run on its way: ``check``, then ``execute``."""

    request: RunConfig
    callbacks: Callbacks = field(default_factory=Callbacks)

    def __post_init__(self) -> None:
        self.shards = Chunks(self.request.out)

    def check(self) -> bool:
        """Whether the run is complete; raises InputError for a folder with a run of other settings."""
        self.shards.require_free()
        if not self.shards.begun:
            return False
        self._refuse(list_differences(self.shards.read_settings()["asked"], self.request.resume_key))
        other = self.shards.compare(self.request.ids)
        self._refuse([other] if other else [])
        return self.shards.complete and not self._find_damage()

    def execute(
        self,
        tasks: Tasks | TasksInfo,
        feed: EncodingSource | Engine,
        about: Mapping[str, Any],
        *,
        fresh: bool = False,
        retry: bool = False,
    ) -> dict[str, Any]:
        """Process the remaining images and write the results; returns run.json, including ``about``.

        Time is counted from here, or from the start of ``feed``'s clock, which is stopped at the end.

        ``fresh`` throws away what there is; ``retry`` has another try at images that failed.  Raises InputError where the
        folder holds another run, if another process is using it, and if results cannot be written: after a full
        disk, for example, the same call resumes.
        """
        request, out = self.request, self.request.out
        folder = RunFolder.create(
            out, request.vocabulary.names, tasks=request.wanted, stuff=request.stuff, overlays=request.overlays
        )
        folder.timed = feed.clock.count
        for remark in about.get("remarks", []):
            self.callbacks.on_note(remark)
        with _counting(feed.clock), self.shards.hold():
            with explain_write_errors(out):
                self.shards.require_free()
                if (fresh and self.shards.begun) or self.shards.cleared:
                    self.shards.clear()
                self._begin(tasks)
            with _spent(self.shards, feed.clock):
                work = Executor(request, self.callbacks, self.shards, folder, tasks, feed)
                work.run_pending(retry)
                done = work.done - work.failed, work.failed
                return finish_run(self.shards, folder, request.wanted, about, feed.clock, done)

    def _find_damage(self) -> list[str]:
        """Files of the complete run that are gone, or not as it wrote them, and images that changed since."""
        completion, out = self.shards.read_completion() or {}, self.request.out
        wanted = [_FINALS[task] for task in self.request.wanted if task != "semantic"]
        finals = [name for name in [*wanted, "run.json"] if not (out / name).exists()]
        finals += find_damage(out, completion.get("files", {}))
        return finals or self._find_lost_parts()

    def _find_lost_parts(self) -> list[str]:
        whole, root = self.shards.list_whole(), self.request.root if self.request.watched else None
        if len(whole) < len(self.shards.list_sizes()):
            return ["shards"]
        found = (self.shards.find_damage(shard, root) for shard in whole.values())
        return next((damage.files + damage.images for damage in found if damage), [])

    def read_summary(self) -> dict[str, Any]:
        """The content of run.json of a complete run."""
        return read_about(self.request.out)

    def _begin(self, tasks: Tasks | TasksInfo) -> None:
        """Store the settings, or check that they equal the stored ones."""
        models = {"provenance": json.loads(json.dumps(tasks.provenance)), "encoding": tasks.encoding_key}
        if not self.shards.begun:
            asked = {
                "format": FORMAT,
                "asked": self.request.resume_key,
                "stretch": self.request.stretch,
                "device": self.request.device,
            }
            self.shards.begin(asked | models, self.request.ids)
            return
        self.shards.clean()
        before = self.shards.read_settings()
        self._refuse(list_differences({key: before.get(key) for key in models}, models))

    def _refuse(self, others: Sequence[str] | Iterator[str]) -> None:
        if said := "; ".join(others):
            raise InputError(
                f"the run in {self.request.out} was asked for something else: {said}; "
                "ask as before, choose another --out, or start it anew with --fresh"
            )


def finish_run(
    shards: Chunks,
    folder: RunFolder,
    wanted: Sequence[str],
    about: Mapping[str, Any],
    clock: StageTimer,
    done: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Write the files of all images from whole shards, and last that the run is complete; returns run.json.

    ``done`` are the images that this call finished and failed, while ``clock`` was running.
    """
    whole = list(shards.list_whole().values())
    rows = shards.read_rows
    failed = [row for shard in whole if shard.about["failed"] for row in shards.read_rows_of(shard) if "failed" in row]
    with clock.count("write"):
        shares = average_shares(rows) if "semantic" in wanted else {}
        with explain_write_errors(folder.out):
            folder.finish(rows, [{"id": row["id"], "reason": row["failed"]} for row in failed], shares)
            _settle(folder, [*(_FINALS[task] for task in wanted), "quarantine.json"])
    last = clock.take_lap()
    images = sum(shard.about["images"] for shard in whole)
    timings = Timings.summed(images, len(failed), [*shards.read_seconds(), last]).as_dict()
    run = dict(about) | {
        "timings": timings | {"last_call": clock.summarize(*done).as_dict()},
        "environments": shards.environments,
        "failed": {row["place"]: row["failed"] for row in failed},
        "instances": sum(shard.about["instances"] for shard in whole),
    }
    run |= {"shares": shares} if "semantic" in wanted else {}
    with explain_write_errors(folder.out):
        folder.write_summary(run)
        _settle(folder, ["run.json"])
        finals = {name: measure_file(folder.out / name) for name in FINALS if (folder.out / name).exists()}
        shards.append({"complete": True, "seconds": last, "files": finals})
    return run


def _settle(folder: RunFolder, names: Sequence[str]) -> None:
    settle(path for path in (folder.out / name for name in names) if path.exists())


@contextmanager
def _counting(clock: StageTimer) -> Iterator[None]:
    """Run a clock unless it is already running."""
    if not clock.running:
        clock.start()
    try:
        yield
    finally:
        clock.stop()


@contextmanager
def _spent(shards: Chunks, clock: StageTimer) -> Iterator[None]:
    """Write down the seconds that no shard has, where something ends the work."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if not shards.complete:
                shards.append({"seconds": clock.take_lap()})
        raise
