"""What Label Studio asks of a model, without the web: a project's labeling interface, predictions, prompts, corrections.

/setup    labeling interface -> which version of the model answers
/predict  tasks -> images -> detections -> regions; or one task and a prompt -> one region
/webhook  a submitted annotation -> corrections of the image
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from annofree.apps.web.kept import Recent
from annofree.apps.web.label_studio.labeling import Labeling, parse_labeling
from annofree.apps.web.label_studio.pictures import Pictures
from annofree.apps.web.label_studio.regions import build_result, list_found, read_annotations, read_prompt
from annofree.apps.web.service import Service, Source
from annofree.errors import InputError
from annofree.formats.annotations import Annotation
from annofree.formats.passed_over import PassedOver
from annofree.formats.polygons import fill_to_rle
from annofree.io.images import decode_bytes, decode_image
from annofree.ops.rle import encode_rle

__all__ = ["Backend", "Keeper"]

_LOG = logging.getLogger(__name__)
_MOST_TASKS, _LONGEST_WHO = 1000, 200
_FETCHED = 128 << 20  # bytes of fetched images that are kept, so that clicks on one fetch it once
_SUBMITTED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")

Json = dict[str, Any]


class Keeper(Protocol):
    """Where corrections are kept."""

    def find_image(self, address: str, file: Path | None, read: Callable[[], bytes]) -> str:
        """The id of a task's image, which is read and taken in where it is not there."""
        ...

    def keep_answer(self, image: str, size: tuple[int, int], things: Sequence[Annotation], who: str) -> None:
        """Keep what a person says there is in an image, all of it."""
        ...


@dataclass
class Backend:
    """Answers Label Studio by a ``service``; images come from ``pictures``, corrections go to ``desk``, if any."""

    service: Service
    pictures: Pictures
    desk: Keeper | None = None
    _fetched: Recent = field(default_factory=lambda: Recent(_FETCHED))
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def set_up(self, body: Json) -> Json:
        """Read a project's labeling interface, and say which version answers it; raises InputError for one that cannot be."""
        return {"model_version": self._name_version(parse_labeling(body.get("schema")))}

    def predict(self, body: Json) -> Json:
        """Answer tasks: each with its regions, or with none where its image cannot be had, which ``failed`` tells.

        With a prompt as its context, the one task is answered by what that means.  Raises InputError where nothing could be
        answered.
        """
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not 0 < len(tasks) <= _MOST_TASKS or not all(isinstance(t, dict) for t in tasks):
            raise InputError(f"expected a list of 1 to {_MOST_TASKS} tasks, got {str(tasks)!r:.80}")
        labeling = parse_labeling(body.get("label_config"))
        context = _read_object(_read_object(body, "params"), "context")
        if context.get("result"):
            return {"results": [self._draw(tasks[0], labeling, context)]}
        results: list[Any] = []
        failed: dict[str, str] = {}
        for task in tasks:
            try:
                results.append(self._answer(task, labeling))
            except InputError as problem:
                _LOG.warning("task %s: %s", task.get("id"), problem)
                failed[str(task.get("id"))] = str(problem)
                results.append([])  # no prediction, rather than one that says that nothing is there
        if len(failed) == len(tasks):
            raise InputError(next(iter(failed.values())))
        return {"results": results, **({"failed": failed} if failed else {})}

    def _answer(self, task: Json, labeling: Labeling) -> Json:
        source = self._open(labeling.find_picture(task))
        found = self.service.answer(source, labeling.vocabulary)
        things = list_found(found, labeling)
        score = sum(found.scores.tolist()) / len(found) if len(found) else 0.0
        return self._tell(build_result(things, labeling, found.size), score, labeling)

    def _draw(self, task: Json, labeling: Labeling, context: Mapping[str, Any]) -> Json:
        """What a prompt means, as one region."""
        prompt = read_prompt(context)
        label = prompt.label or (labeling.labels[0] if len(labeling.labels) == 1 else None)
        if label not in labeling.labels:
            known = ", ".join(labeling.labels)
            raise InputError(
                f"expected a label that the interface has for brushes, polygons or rectangles ({known}), got {label}"
            )
        drawn = self.service.segment(self._open(labeling.find_picture(task)), prompt.points, prompt.box)
        if drawn.mask.shape != prompt.size:
            raise InputError(f"expected a prompt on the image of {drawn.mask.shape} (H, W), got one on {prompt.size}")
        thing = Annotation(label, drawn.box, encode_rle(drawn.mask), drawn.score)
        return self._tell(build_result([thing], labeling, prompt.size), drawn.score, labeling)

    def _tell(self, result: list[Json], score: float, labeling: Labeling) -> Json:
        return {"result": result, "score": score, "model_version": self._name_version(labeling)}

    def _name_version(self, labeling: Labeling) -> str:
        """The method and models, and a sign of the names: Label Studio asks again for tasks where it changes."""
        plan = self.service.plan
        sign = hashlib.sha256(repr((plan, labeling)).encode(errors="surrogateescape")).hexdigest()[:8]
        return f"annofree {plan.resolve_methods()['instance']} {plan.models} {sign}"

    def take(self, body: Json) -> Json:
        """Keep what a person submitted as corrections; anything else that happened is passed over.

        Raises InputError for an annotation that cannot be read: then none of it is kept.
        """
        kept = 0
        if self.desk is not None and body.get("action") in _SUBMITTED:
            labeling = parse_labeling(_read_object(body, "project").get("label_config"))
            for annotation, task in _pair(body.get("annotation"), body.get("task")):
                kept += self._keep(annotation, task, labeling, self.desk)
        return {"status": "ok", "kept": kept}

    def _keep(self, annotation: Any, task: Any, labeling: Labeling, desk: Keeper) -> bool:
        if not isinstance(annotation, dict) or not isinstance(task, dict):
            raise InputError("expected an annotation and its task; let the webhook send its payload")
        if annotation.get("was_cancelled"):
            return False
        address = labeling.find_picture(task)
        file, image, passed = self.pictures.find_file(address), self._open(address).open(), PassedOver()
        things = read_annotations(annotation, image.size, passed)
        passed.check()
        names = dict(zip(labeling.labels, labeling.vocabulary.names, strict=True))
        masks = [_fill(replace(thing, name=names.get(thing.name, thing.name)), image.size) for thing in things]
        place = desk.find_image(address, file, lambda: self._fetch(address) if file is None else file.read_bytes())
        desk.keep_answer(place, image.size, masks, _name_person(annotation))
        return True

    def _open(self, address: str) -> Source:
        """The image at an address; one that has to be fetched is fetched now."""
        file = self.pictures.find_file(address)
        if file is not None:
            about = file.stat()
            return Source(f"{file}|{about.st_size}|{about.st_mtime_ns}", lambda: decode_image(file, address))
        data = self._fetch(address)
        return Source(hashlib.sha256(data).hexdigest(), lambda: decode_bytes(data, address))

    def _fetch(self, address: str) -> bytes:
        with self._turn:
            data: bytes | None = self._fetched.get(address)
        if data is None:
            data = self.pictures.fetch(address)
            with self._turn:
                self._fetched.keep(address, data, len(data))
        return data


def _fill(thing: Annotation, size: tuple[int, int]) -> Annotation:
    """A rectangle as the mask of its pixels; anything else as it is."""
    if thing.rle is not None:
        return thing
    x0, y0, x1, y1 = thing.box
    rle = fill_to_rle([np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])], size)
    return replace(thing, rle=rle)


def _read_object(held: Mapping[str, Any], key: str) -> Json:
    """An object of what was sent, empty where it is not there."""
    part = held.get(key) or {}
    if not isinstance(part, dict):
        raise InputError(f"expected {key} as an object, got {str(part)!r:.60}")
    return part


def _pair(annotations: Any, tasks: Any) -> list[tuple[Any, Any]]:
    """Annotations with their tasks: one of each, or as many of each."""
    if not isinstance(annotations, list):
        return [(annotations, tasks)]
    if not isinstance(tasks, list) or len(tasks) != len(annotations):
        raise InputError(f"expected a task for each of {len(annotations)} annotations; let the webhook send its payload")
    return list(zip(annotations, tasks, strict=True))


def _name_person(annotation: Json) -> str:
    """Who submitted an annotation: a mail address, else the number of the account."""
    who = annotation.get("completed_by")
    return f"label-studio: {who.get('email') or who.get('id') if isinstance(who, dict) else who}"[:_LONGEST_WHO]
