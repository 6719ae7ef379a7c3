"""The one place that asks models: an image is encoded once, and answers for any names; prompts are drawn by SAM.

    question -> queue -> worker: encoding, kept or made -> names -> ranking, and what the policy says of each

``answer``, ``rank``, ``segment`` and ``do`` wait for their turn and block: call them from a thread that is not the loop's, such
as that of a FastAPI endpoint declared with ``def``.  In a coroutine: ``await service.ask(lambda: service.now.answer(image,
classes))``, and likewise ``draw_maps`` and ``explain`` of ``now``.  All raise BusyError where too many wait, LateError where it
takes too long, and InputError for bad input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from annofree.apps.web.kept import KeptEncodings, Recent, find_part, measure_bytes
from annofree.apps.web.worker import Worker
from annofree.errors import InputError
from annofree.ops.rle import encode_rle, list_counts
from annofree.pipelines.plan import Plan
from annofree.protocols import Embedding
from annofree.runs.tasks import Prediction, Tasks
from annofree.structures import BoolArray, Classes, Detections, FloatArray, Image, Vocabulary

if TYPE_CHECKING:
    from annofree.methods.explain.explain import Explanation

__all__ = ["Asked", "Drawn", "Ranked", "Service", "Source", "to_source"]

T = TypeVar("T")
_MOST_POINTS = 64


@dataclass(frozen=True, eq=False)
class Source:
    """An image that is opened when it is needed: ``key`` tells it from all others, and from what it was before a change.

    ``find_stored`` returns what a run kept of it for some tasks on a device, or None.
    """

    key: str
    open: Callable[[], Image]
    find_stored: Callable[[Tasks, str], Any] = lambda tasks, device: None


@dataclass(frozen=True, eq=False)
class Ranked:
    """The ranking of an image, and for each why the policy drops it, an empty text for those that it hands over."""

    found: Detections
    reasons: tuple[str, ...]

    @property
    def kept(self) -> BoolArray:
        """Which are handed over, (N)."""
        return np.array([not why for why in self.reasons], bool)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a prompt means: ``mask`` (H, W), its tight ``box`` x0 y0 x1 y1 px, and SAM's own guess of its IoU, 0 .. 1."""

    mask: BoolArray
    box: tuple[float, float, float, float]
    score: float

    def to_json(self) -> dict[str, Any]:
        """The same as the page has it."""
        rle = encode_rle(self.mask)
        mask = {"size": list(rle["size"]), "counts": list_counts(rle)}
        return {"mask": mask, "box": list(self.box), "score": self.score}


def to_source(image: Image | Source) -> Source:
    """Return an image in memory as a source; its pixels are its key."""
    if isinstance(image, Source):
        return image
    digest = hashlib.sha256(f"{image.pixels.shape}".encode() + np.ascontiguousarray(image.pixels).data)
    return Source(digest.hexdigest(), lambda: image)


class Asked:
    """Does what is asked at once, in the thread of the worker alone; ``memory`` bounds the encodings in it, in bytes.

    Models and the libraries that they need are imported by the first question, so that the page is there before them.
    """

    def __init__(self, plan: Plan, memory: int, kept: KeptEncodings | None) -> None:
        self.plan, self.kept = plan, kept
        self._recent = Recent(memory)
        self._loaded: dict[tuple[str, ...], Tasks] = {}
        self._sam: Any = None

    def change_plan(self, plan: Plan) -> None:
        """Answer by another method or other models from now on; those before are let go."""
        if plan != self.plan:
            if plan.models != self.plan.models or plan.device != self.plan.device:
                self._sam = None
            self.plan = plan
            self._loaded.clear()

    def answer(self, image: Image | Source, classes: Classes) -> Detections:
        """What the policy hands over."""
        ranked = self.rank(image, classes)
        names = Vocabulary.of(classes).names
        return ranked.found[ranked.kept].with_names(names)

    def rank(self, image: Image | Source, classes: Classes) -> Ranked:
        """The whole ranking, with what the policy says of each."""
        from annofree.methods.answering import Answering

        vocabulary = Vocabulary.of(classes)
        tasks = self._load(("instance",), vocabulary)
        encoding = self._encode(to_source(image), tasks)
        method = tasks.instances
        if not isinstance(method, Answering):
            found = tasks.overlaps.apply(tasks.predict(encoding, vocabulary).detections or _none())
            return Ranked(found, ("",) * len(found))
        found, told = method.rank(encoding[0], vocabulary), method.count_told(vocabulary)
        return Ranked(found, tuple(method.policy.explain(found, told)))

    def draw_maps(self, image: Image | Source, classes: Classes, task: str, stuff: tuple[str, ...] = ()) -> Prediction:
        """The label map (``semantic``) or the panoptic map."""
        vocabulary = Vocabulary.of(classes)
        tasks = replace(self._load((task,), vocabulary), stuff=stuff)
        return tasks.predict(self._encode(to_source(image), tasks), vocabulary)

    def segment(self, image: Image | Source, points: Sequence[Sequence[float]], box: Sequence[float] | None = None) -> Drawn:
        """What points x y and 1 or 0 (on the thing, or off it), a box x0 y0 x1 y1, or both mean, in px of the image."""
        source = to_source(image)
        embedding = self._embed(source)
        at, labels, corners = _check_prompt(points, box, embedding.size)
        more = {} if at is None else {"labels": labels}
        many = corners is None and at is not None and at.shape[1] == 1
        drawn = self.sam.predict_masks(embedding, boxes=corners, points=at, multimask=many, **more)
        best = int(drawn.quality[0].argmax())
        mask = drawn.masks[0, best].cpu().numpy()
        tight = Detections.from_masks(mask[None], [0], [1.0], ["object"])
        if not len(tight):
            raise InputError("expected a thing there, but nothing was drawn; click elsewhere, or draw a box")
        x0, y0, x1, y1 = tight.boxes[0].tolist()
        return Drawn(mask, (x0, y0, x1, y1), float(drawn.quality[0, best].clamp(0, 1)))

    def explain(self, image: Image | Source, classes: Classes) -> Explanation:
        """Every step of the method, drawn."""
        from annofree.methods.explain.explain import explain_method

        vocabulary = Vocabulary.of(classes)
        return explain_method(self._load(("instance",), vocabulary).instances, to_source(image).open(), vocabulary, "instance")

    @property
    def sam(self) -> Any:
        """The SAM of the preset; raises InputError for a preset without one."""
        if self._sam is None:
            from annofree.methods.components import Models

            self._sam = Models(self.plan.models, self.plan.device, precision=self.plan.precision).sam
        return self._sam

    def load(self, vocabulary: Vocabulary) -> None:
        """Load what finds instances, before anybody waits for it."""
        self._load(("instance",), vocabulary)

    def _load(self, wanted: tuple[str, ...], vocabulary: Vocabulary) -> Tasks:
        if wanted not in self._loaded:
            plan = replace(self.plan, wanted=wanted)
            plan.check()
            self._loaded[wanted] = plan.load_tasks(vocabulary)
        return self._loaded[wanted]

    def _encode(self, source: Source, tasks: Tasks) -> Any:
        key = (source.key, *tasks.encoding_key)
        if (found := self._recent.get(key)) is not None:
            return found
        from annofree.methods.components import resolve_device

        device = resolve_device(self.plan.device)
        found = source.find_stored(tasks, device)
        if found is None and self.kept is not None:
            found = self.kept.read(source.key, tasks, device)
        if found is None:
            (found,) = tasks.encode([source.open()])
            if self.kept is not None:
                self.kept.write(source.key, tasks, found)
        self._recent.keep(key, found, measure_bytes(found))
        return found

    def _embed(self, source: Source) -> Embedding:
        """What SAM keeps of an image: of the method's encoding where it is in it."""
        key = source.key, "sam", self.plan.models
        embedding: Embedding | None = self._recent.get(key)
        if embedding is None:
            tasks = self._loaded.get(("instance",))
            held = None if tasks is None else self._recent.get((source.key, *tasks.encoding_key))
            embedding = find_part(held, Embedding)
        if embedding is None:
            (embedding,) = self.sam.embed([source.open()])
            self._recent.keep(key, embedding, measure_bytes(embedding))
        return embedding


class Service:
    """Models behind one queue: ``most`` questions wait at most, none longer than ``timeout`` seconds.

    ``memory`` are the bytes that encodings may take, and ``kept`` the folder where they stay.  ``now`` does what is asked at
    once: only jobs of ``ask`` and ``do`` may call it.
    """

    def __init__(
        self, plan: Plan, *, most: int = 64, timeout: float = 60.0, memory: int = 512 << 20, kept: Path | None = None
    ) -> None:
        self.now = Asked(plan, memory, None if kept is None else KeptEncodings(kept))
        self.worker = Worker(most, timeout)
        self.do, self.ask, self.submit = self.worker.do, self.worker.ask, self.worker.offer

    @property
    def plan(self) -> Plan:
        """Which method of which models answers."""
        return self.now.plan

    def answer(self, image: Image | Source, classes: Classes) -> Detections:
        """The instances of some classes, as ``segment`` hands them over, strongest first."""
        return self.do(lambda: self.now.answer(image, classes))

    def rank(self, image: Image | Source, classes: Classes) -> Ranked:
        """All candidates, and why the policy drops those that it drops."""
        return self.do(lambda: self.now.rank(image, classes))

    def segment(self, image: Image | Source, points: Sequence[Sequence[float]], box: Sequence[float] | None = None) -> Drawn:
        """The mask, box and score of what points (x y and 1 or 0) and a box (x0 y0 x1 y1) mean, in px of the image."""
        return self.do(lambda: self.now.segment(image, points, box))

    def change_plan(self, plan: Plan) -> None:
        """Answer by another method or other models from now on; raises InputError for what does not fit together."""
        plan.check()
        self.do(lambda: self.now.change_plan(plan))

    def close(self) -> None:
        """End the worker."""
        self.worker.close()


def _none() -> Detections:
    return Detections.none((1, 1), ("object",))


def _check_prompt(
    points: Sequence[Sequence[float]], box: Sequence[float] | None, size: tuple[int, int]
) -> tuple[Any, Any, Any]:
    """Points (1, n, 2) and labels (1, n), or None; a box (1, 4), or None; raises InputError for others."""
    try:
        rows = np.array([[float(v) for v in point] for point in points], np.float32).reshape(len(points), 3)
        corners = None if box is None else np.array([float(v) for v in box], np.float32).reshape(1, 4)
    except (TypeError, ValueError, OverflowError):
        raise InputError("expected points as [x, y, 1 or 0] and a box as [x0, y0, x1, y1], got something else") from None
    if not len(rows) and corners is None:
        raise InputError("expected a point or a box, got neither; click on the thing, or draw a box around it")
    if len(rows) > _MOST_POINTS:
        raise InputError(f"expected at most {_MOST_POINTS} points, got {len(rows)}; begin anew")
    if not (_lies_inside(rows[:, :2], size) and np.isin(rows[:, 2], (0, 1)).all() and _is_box(corners, size)):
        raise InputError(
            f"expected points and boxes inside of the image, {size[1]} x {size[0]} px, got {points!r:.80} {box!r:.60}"
        )
    if not len(rows):
        return None, None, corners
    return rows[None, :, :2], rows[None, :, 2].astype(np.int64), corners


def _lies_inside(places: FloatArray, size: tuple[int, int]) -> bool:
    return bool(np.isfinite(places).all() and (places >= 0).all() and (places <= np.array([size[1], size[0]])).all())


def _is_box(corners: FloatArray | None, size: tuple[int, int]) -> bool:
    if corners is None:
        return True
    x0, y0, x1, y1 = corners[0].tolist()
    return _lies_inside(corners.reshape(2, 2), size) and x0 < x1 and y0 < y1
