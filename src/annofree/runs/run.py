"""A run: many pictures into one folder, stopped at any moment, gone on with by the same command.

On the same machine, with the same versions and threads, it ends with the very bytes of a run that was never stopped.

    inputs.txt -> a stretch -> batches -> rows, and files of each picture -> shard -> manifest ... -> the files of all

What was done is known by the manifest alone.  A picture that was done in part is done again, and its files are replaced by
the same.  A run may go on elsewhere: up to rounding its results are the same, and run.json lists each environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from annofree.errors import InputError
from annofree.io.settings_diff import differences
from annofree.runs.batch_encoder import Timings
from annofree.runs.config import Ears, Feed, Request
from annofree.runs.executor import Work, writing
from annofree.runs.store.chunks import Shard, Shards, settle
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.results import mean_shares
from annofree.runs.tasks import Tasks

__all__ = ["Run", "finish"]

_FORMAT = 1
_FINALS = {"instance": "annotations.json", "panoptic": "panoptic.json", "semantic": "labels/shares.json"}


@dataclass
class Run:
    """A run on its way: ``check``, then ``go``."""

    request: Request
    ears: Ears = field(default_factory=Ears)

    def __post_init__(self) -> None:
        self.shards = Shards(self.request.out)

    def check(self) -> bool:
        """Tell whether all is done; raises InputError for a folder with a run that was asked for something else."""
        if not self.shards.begun:
            return False
        self._refuse(differences(self.shards.settings()["asked"], self.request.asked))
        other = self.shards.compare(self.request.ids)
        self._refuse([other] if other else [])
        finals = [_FINALS[task] for task in self.request.wanted if task != "semantic"]
        return self.shards.complete and all((self.request.out / name).exists() for name in [*finals, "run.json"])

    def go(
        self,
        tasks: Tasks,
        feed: Feed,
        about: Mapping[str, Any],
        *,
        fresh: bool = False,
        retry: bool = False,
    ) -> dict[str, Any]:
        """Do what is left to do and write the results; returns what run.json holds, ``about`` among it.

        ``fresh`` throws away what there is; ``retry`` has another try at pictures that failed.  Raises InputError where the
        folder is another run's, where another process is at work in it, and where results cannot be written: after a full
        disk, say, the same call goes on.
        """
        request, out = self.request, self.request.out
        folder = RunFolder.create(
            out, request.vocabulary.names, tasks=request.wanted, stuff=request.stuff, overlays=request.overlays
        )
        for remark in about.get("remarks", []):
            self.ears.note(remark)
        with _locked(self.shards):
            with writing(out):
                if fresh and self.shards.begun:
                    self.shards.clear()
                self._begin(tasks)
            Work(request, self.ears, self.shards, folder, tasks, feed).all(retry)
            return finish(self.shards, folder, request.wanted, about)

    def summary(self) -> dict[str, Any]:
        """What run.json of a complete run holds."""
        return dict(json.loads((self.request.out / "run.json").read_text(encoding="utf-8")))

    def _begin(self, tasks: Tasks) -> None:
        """Write down what is asked for, or check that it is what was asked for before."""
        models = {"provenance": json.loads(json.dumps(tasks.provenance)), "encoding": tasks.encoding_key}
        if not self.shards.begun:
            asked = {
                "format": _FORMAT,
                "asked": self.request.asked,
                "stretch": self.request.stretch,
                "device": self.request.device,
            }
            self.shards.begin(asked | models, self.request.ids)
            return
        self.shards.clean()
        before = self.shards.settings()
        self._refuse(differences({key: before.get(key) for key in models}, models))

    def _refuse(self, others: Sequence[str] | Iterator[str]) -> None:
        if said := "; ".join(others):
            raise InputError(
                f"the run in {self.request.out} was asked for something else: {said}; "
                "ask as before, choose another --out, or start it anew with --fresh"
            )


def finish(shards: Shards, folder: RunFolder, wanted: Sequence[str], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files of all pictures from whole shards, and last that the run is complete; returns run.json."""
    whole = list(shards.whole().values())
    rows = shards.rows
    failed = [row for shard in whole if shard.about["failed"] for row in shards.rows_of(shard) if "failed" in row]
    shares = mean_shares(rows) if "semantic" in wanted else {}
    run = dict(about) | {
        "timings": _timings(whole).as_dict(),
        "environments": shards.environments,
        "failed": {row["place"]: row["failed"] for row in failed},
        "instances": sum(shard.about["instances"] for shard in whole),
    }
    run |= {"shares": shares} if "semantic" in wanted else {}
    with writing(folder.out):
        folder.finish(rows, run, [{"id": row["id"], "reason": row["failed"]} for row in failed], shares)
        names = [*(_FINALS[task] for task in wanted), "quarantine.json", "run.json"]
        settle(path for path in (folder.out / name for name in names) if path.exists())
        shards.append({"complete": True})
    return run


def _timings(whole: Sequence[Shard]) -> Timings:
    """What all shards took, whichever session they were made in."""
    parts = ("total", "read", "encode", "instances")
    seconds = {f"seconds_{part}": sum(s.about["seconds"].get(part, 0.0) for s in whole) for part in parts}
    return Timings(sum(s.about["images"] for s in whole), sum(s.about["failed"] for s in whole), **seconds)


@contextmanager
def _locked(shards: Shards) -> Iterator[None]:
    shards.lock()
    try:
        yield
    finally:
        shards.unlock()
