"""One image of a run: from its encoding to the row and the files that the run keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from annofree.io.image_checksums import measure_image
from annofree.io.text import clean_text
from annofree.runs.batch_encoder import EncodeResult, attempt
from annofree.runs.clock import StageTimer
from annofree.runs.encodings import Packed, pack
from annofree.runs.store.chunks import Row
from annofree.runs.store.disk import explain_write_errors
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultName
from annofree.runs.tasks import Prediction, Tasks
from annofree.structures import Vocabulary

__all__ = ["ImageDone", "ImageWork"]


@dataclass(frozen=True, eq=False)
class ImageDone:
    """What became of an image: its row, its encoding where these are kept, and what a worker elsewhere wrote, by place."""

    row: Row
    packed: Packed | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageWork:
    """Predicts for encodings and writes the results to ``folder``, an image at a time.

    ``watched``: the checksum of an image stands in its row, so that a later call knows whether it changed.
    """

    folder: RunFolder
    tasks: Tasks
    vocabulary: Vocabulary
    clock: StageTimer
    min_score: float = 0.0
    keep: bool = False
    watched: bool = True

    def process(self, one: EncodeResult, name: ResultName) -> ImageDone:
        """Predict for one encoding, write the results under a name, and return its row."""
        found = self._answer(one)
        done = ImageDone(_explain(one, found)) if isinstance(found, Exception) else self._found(one, found, name)
        known = measure_image(one.place) if self.watched and "failed" not in done.row else None
        more = {} if known is None else {"input": known}
        return ImageDone({"n": one.number, "id": one.id, **done.row, **more}, done.packed)

    def _answer(self, one: EncodeResult) -> Prediction | Exception:
        if one.problem is not None:
            return one.problem
        timed = self.clock.count
        return attempt(self.clock, "other", lambda: self.tasks.predict(one.encoding, self.vocabulary, timed))

    def _found(self, one: EncodeResult, prediction: Prediction, name: ResultName) -> ImageDone:
        detections, joined = prediction.detections, prediction.panoptic
        if detections is not None and self.min_score > 0:
            detections = detections[detections.scores >= self.min_score]
        with self.clock.count("write"), explain_write_errors(self.folder.out):
            packed = pack(one.encoding) if self.keep else None
            segments = None if joined is None else (joined.segments, joined.to_coco())
            labels = prediction.label_map
            row = self.folder.record(name, one.size, one.image, detections=detections, labels=labels, segments=segments)
            return ImageDone(row, packed)


def _explain(one: EncodeResult, problem: Exception) -> Row:
    """The row of an image that gave no result: why, and where it is."""
    shown = clean_text(one.place)
    lines = str(problem).replace(one.place, shown).splitlines()
    why = clean_text(lines[0]) if lines else type(problem).__name__
    return {"failed": why if shown in why else f"{shown}: {why}", "place": shown}
