"""A method on images, with results in memory: nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from annofree.io.callbacks import Callbacks
from annofree.runs.batch_encoder import BatchEncoder, EncodeResult, attempt
from annofree.runs.clock import StageTimer
from annofree.runs.inputs import Inputs
from annofree.runs.tasks import Prediction, Tasks
from annofree.structures import Vocabulary

__all__ = ["predict"]


def predict(
    tasks: Tasks,
    inputs: Inputs,
    vocabulary: Vocabulary,
    *,
    min_score: float = 0.0,
    batch_size: int = 4,
    callbacks: Callbacks,
) -> Iterator[Prediction]:
    """What is found in each image, in order; one that fails has its error, unless it is the only one.

    Enter ``silence_pillow`` around this.  Raises ImageError, or what else failed, for an only image.
    """
    feed, total = BatchEncoder(tasks, batch_size, reader=inputs.read), len(inputs.ids)
    callbacks.on_progress(0, total)
    entries = [(k, id_, inputs.place(id_)) for k, id_ in enumerate(inputs.ids)]
    for batch in feed.encode_batches(entries):
        for one in batch:
            found = _ask(tasks, one, vocabulary, feed.clock)
            if isinstance(found, Exception):
                if total == 1:
                    raise found
                callbacks.on_failure(one.id, str(found))
                found = Prediction(error=str(found))
            callbacks.on_progress(one.number + 1, total)
            yield replace(_above(found, min_score), id=one.id)


def _ask(tasks: Tasks, one: EncodeResult, vocabulary: Vocabulary, clock: StageTimer) -> Prediction | Exception:
    if one.problem is not None:
        return one.problem
    return attempt(clock, "other", lambda: tasks.predict(one.encoding, vocabulary))


def _above(found: Prediction, min_score: float) -> Prediction:
    detections = found.detections
    if detections is None or min_score <= 0:
        return found
    return replace(found, detections=detections[detections.scores >= min_score])
