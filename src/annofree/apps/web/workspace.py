"""What the page shows and keeps: images, the names and the method that are asked for, answers, and what people correct."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from annofree.apps.web.image_list import ImageList, Listed, Told, measure
from annofree.apps.web.kept import Recent
from annofree.apps.web.pictures import Pictures
from annofree.apps.web.run_answers import OpenedRun
from annofree.apps.web.service import Ranked, Service, Source
from annofree.apps.web.uploads import Limits, Uploads
from annofree.errors import ImageError, InputError, build_unknown_error
from annofree.evaluation.review.risk import STORED, Scale
from annofree.formats.annotations import Annotation
from annofree.formats.registry import FORMATS
from annofree.hub.presets import list_presets
from annofree.io.atomic import make_folder, write_json
from annofree.io.image_sources import find_file, read_place
from annofree.methods.registry import list_methods
from annofree.methods.tuning import POLICIES
from annofree.ops.palette import assign_colors, to_hex
from annofree.ops.rle import list_counts
from annofree.pipelines.plan import Plan
from annofree.runs.corrections.acts import Instance, combine, name_instance
from annofree.runs.corrections.answers import Answer, AnswerStore, find_workspace, read_workspace
from annofree.runs.corrections.journal import Journal
from annofree.structures import Image, Vocabulary

__all__ = ["NotFoundError", "Opening", "Workspace"]

_MOST_REST, _MOST_CLASSES = 50, 2000
_MEMORY = 64 << 20  # bytes of answers


class NotFoundError(InputError):
    """An image that is not there."""


@dataclass(frozen=True)
class Opening:
    """What a page is opened on."""

    # where the journal and the page's own files are
    folder: Path
    # the title of the page
    title: str
    # a complete run
    run: OpenedRun | None = None
    # what the run asked, and how
    run_plan: Plan | None = None
    # a folder of images
    images: Path | None = None
    # the names asked for, None for those of before, or of the run
    vocabulary: Vocabulary | None = None
    # whose corrections they are
    who: str = "somebody"
    # how large what is sent may be
    limits: Limits = field(default_factory=Limits)


class Workspace:
    """One page's images and answers, for the one process that writes there; for threads.

    Raises InputError where another process is at work, and for files that are damaged.
    """

    def __init__(self, opening: Opening, service: Service) -> None:
        self.opening, self.service = opening, service
        self.own = find_workspace(opening.folder)
        make_folder(self.own)
        self.journal = Journal(opening.folder)
        self.images, self.answers = ImageList(), AnswerStore(opening.folder)
        self.pictures = Pictures(self.own / "thumbnails")
        self.uploads = Uploads(self.own / "uploads", opening.limits)
        self._turn, self._recent, self._told = threading.Lock(), Recent(_MEMORY), dict[str, Told]()
        self._choosing = threading.Lock()  # never held by the worker, which may be waited for with it
        held = read_workspace(opening.folder)
        self._refuse_other(held)
        self.version = int(held.get("version", 0))
        self.vocabulary = self._choose_names(held)
        self._run_asked = None
        if opening.run is not None and opening.run_plan is not None:
            self._run_asked = _tell_asked(opening.run_plan, _entries(opening.run.asked["classes"]))
        self._restore_plan(held)
        self._list_images()
        self._save()

    # what is asked

    @property
    def plan(self) -> Plan:
        """Which method of which models answers."""
        return self.service.plan

    @property
    def asked(self) -> str:
        """What the present answers are to."""
        return _tell_asked(self.plan, self.vocabulary)

    @property
    def shows_run(self) -> bool:
        """Whether the answers are those of the run."""
        return self._run_asked is not None and self.asked == self._run_asked

    def describe(self) -> dict[str, Any]:
        """The workspace as the page has it."""
        names = [] if self.vocabulary is None else list(self.vocabulary.names)
        colors = assign_colors(names)
        words = [] if self.vocabulary is None else self.vocabulary.synonyms
        folded = [history.fold() for history in list(self.journal.histories.values())]
        plan = self.plan
        return {
            "title": self.opening.title,
            "kind": "run" if self.opening.run else "folder" if self.opening.images else "uploads",
            "images": len(self.images),
            "version": self.version,
            "revision": self.journal.revision,
            "formats": [{"name": name, "title": format_.about} for name, format_ in FORMATS.items()],
            "classes": [{"name": w[0], "synonyms": list(w[1:]), "color": to_hex(colors[w[0]])} for w in words],
            "method": plan.resolve_methods()["instance"],
            "methods": [{"name": m.name, "title": m.name.replace("_", " ")} for m in list_methods() if "instance" in m.tasks],
            "preset": plan.models,
            "presets": list(dict.fromkeys([*list_presets(), plan.models])),
            "policies": list(POLICIES),
            "policy": plan.policy,
            "who": self.opening.who,
            "tier": max((card.tier for card in plan.list_cards()), default="S0"),
            "counts": {"reviewed": sum(p.reviewed for p in folded), "corrected": sum(p.corrected > 0 for p in folded)},
        }

    def change_classes(self, rows: Any) -> None:
        """Ask for other names from now on; raises InputError for what are none."""
        vocabulary = _read_classes(rows)
        with self._choosing:
            self.vocabulary = vocabulary
            self._change()

    def change_settings(self, asked: Any) -> None:
        """Ask another method, preset or policy from now on; raises InputError for one that is not known."""
        if not isinstance(asked, dict) or set(asked) - {"method", "preset", "policy"}:
            raise InputError(f"expected method, preset or policy, got {str(asked)!r:.80}")
        known = {"method": [m.name for m in list_methods()], "preset": list(list_presets()), "policy": list(POLICIES)}
        for key, value in asked.items():
            now = self.plan.models if key == "preset" else getattr(self.plan, key)
            if value != now and value not in known[key]:
                raise build_unknown_error(key, str(value)[:60], known[key])
        changes = {"models" if key == "preset" else key: value for key, value in asked.items()}
        with self._choosing:
            self.service.change_plan(replace(self.plan, **changes))
            self._change()

    def _change(self) -> None:
        self.version += 1
        self._told.clear()
        self._save()

    # images

    def find(self, id_: str) -> Listed:
        """An image by its id; raises NotFoundError where there is none."""
        found = self.images.find(id_)
        if found is None:
            raise NotFoundError(f"expected an image of this page, got {id_!r:.100}; load the list again")
        return found

    def open_source(self, one: Listed) -> Source:
        """An image to be opened, known by its place, size and time; raises NotFoundError where its file is gone."""
        if not one.place:
            raise NotFoundError(f"expected the file of {one.id!r:.100}, but the images of the run are not where it had them")
        try:
            about = find_file(one.place).stat()
        except OSError:
            raise NotFoundError(f"expected the file of {one.id!r:.100}, and it is not there any more") from None
        run, row = self.opening.run, one.row
        source = Source(f"{one.place}\n{about.st_size}\n{about.st_mtime_ns}", partial(self._read, one))
        return source if run is None or row is None else replace(source, find_stored=partial(run.find_encoding, row))

    def list_page(self, **asked: Any) -> dict[str, Any]:
        """Images of the list, as ``ImageList.list_page`` has them."""
        shows_run = self.shows_run
        return self.images.list_page(
            self.journal.histories, partial(self._tell, shows_run=shows_run), by_run=shows_run, **asked
        )

    def upload(self, name: str, data: bytes) -> str:
        """Take an image, and return its id; raises InputError for what is none or too large."""
        written, _ = self.uploads.add(name, data)
        return self.images.add_uploads(self.uploads.folder, [written])[0]

    def _read(self, one: Listed) -> Image:
        measure(one)
        width, height = one.width, one.height
        if width * height > self.opening.limits.pixels:
            raise ImageError(f"expected at most {self.opening.limits.pixels:,} pixels, {one.id!r:.60} has {width} x {height}")
        return read_place(one.place, one.id)

    # answers

    def find_answer(self, one: Listed) -> Answer | None:
        """What the machine said of an image to what is asked now, None where it has to be asked."""
        vocabulary = self.vocabulary
        asked = _tell_asked(self.plan, vocabulary)
        if vocabulary is None:
            measure(one)
            return Answer((one.height, one.width), ())
        key = one.id, asked
        with self._turn:
            found: Answer | None = self._recent.get(key)
        if found is None and self.shows_run and one.row is not None and self.opening.run is not None:
            found = self.opening.run.read(one.row)
        elif found is None:
            found = self.answers.read(one.id, asked)
        if found is not None:
            self._remember(one, asked, found)
        return found

    def ask_machine(self, one: Listed) -> Answer:
        """Ask the method; to be called by the worker."""
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise InputError("expected the names of some classes, got none; type them first")
        asked = _tell_asked(self.plan, vocabulary)  # the worker alone changes the plan
        began = time.perf_counter()
        found = _to_answer(self.service.now.rank(self.open_source(one), vocabulary), began)
        self.answers.write(one.id, asked, found)
        self._remember(one, asked, found)
        return found

    def show(self, one: Listed, answer: Answer) -> dict[str, Any]:
        """An answer with what people decided, as the page has it."""
        history = self.journal.find(one.id)
        present = history.fold()
        return {
            "image": one.id,
            "width": answer.size[1],
            "height": answer.size[0],
            "version": self.version,
            "revision": history.revision,
            "state": "reviewed" if present.reviewed else "open",
            "encoded": True,
            "seconds": answer.seconds,
            "undo": history.has_step("undo"),
            "redo": history.has_step("redo"),
            "instances": [_tell_instance(i) for i in combine(answer.instances, present)],
        }

    def act(self, one: Listed, answer: Answer, acts: Any, revision: Any) -> None:
        """Do acts on an image; on the disk when this returns."""
        shown = combine(answer.instances, self.journal.find(one.id).fold())
        self.journal.act(one.id, acts, shown, answer.size, revision, self.opening.who)

    def take_step(self, one: Listed, way: str, revision: Any = None) -> None:
        """Undo or redo."""
        self.journal.take_step(one.id, way, self.opening.who, revision)

    def close(self) -> None:
        """Let others write."""
        self.journal.close()

    # inside

    @property
    def _place(self) -> str:
        """Where the images are, beside those that were sent."""
        opening = self.opening
        folder = opening.run.folder if opening.run else opening.images
        return "" if folder is None else str(folder.resolve())

    def _refuse_other(self, held: dict[str, Any]) -> None:
        """Raise InputError for a workspace of other images, whose names would be taken for those of these."""
        if held.get("images") and self._place and held["images"] != self._place:
            self.journal.close()
            raise InputError(
                f"expected the workspace of {self._place}, but {self.opening.folder} is that of {held['images']}; "
                "choose another --out"
            )

    def _choose_names(self, held: dict[str, Any]) -> Vocabulary | None:
        if self.opening.vocabulary is not None:
            return self.opening.vocabulary
        before = held.get("classes") or (self.opening.run.asked["classes"] if self.opening.run else None)
        return Vocabulary.of(_entries(before)) if before else None

    def _restore_plan(self, held: dict[str, Any]) -> None:
        """Go on with the method that was chosen on the page, unless the command names what to ask."""
        before, self._base = held.get("plan"), _tell_plan(self.plan)
        if isinstance(before, dict) and before.get("base") == self._base:
            own = {key: before[key] for key in ("method", "models", "policy") if key in before}
            self.service.change_plan(replace(self.plan, **own))

    def _list_images(self) -> None:
        opening = self.opening
        if opening.run is not None:
            self.images.add_run(opening.run)
        elif opening.images is not None:
            self.images.add_folder(opening.images, opening.folder)
        self.images.add_uploads(self.uploads.folder, self.uploads.list_names())

    def _save(self) -> None:
        words = [] if self.vocabulary is None else [list(words) for words in self.vocabulary.synonyms]
        plan = {"base": self._base, "method": self.plan.method, "models": self.plan.models, "policy": self.plan.policy}
        held = {"format": 1, "version": self.version, "classes": words, "plan": plan, "images": self._place}
        held |= {"asked": "" if self.shows_run else self.asked}
        write_json(self.own / "workspace.json", held, indent=1, ascii_only=True)

    def _remember(self, one: Listed, asked: str, answer: Answer) -> None:
        one.height, one.width = answer.size
        size = 300 + sum(len(i.rle["counts"]) + 400 for i in answer.instances)
        with self._turn:
            self._recent.keep((one.id, asked), answer, size)
        if asked == self.asked:
            self._told[one.id] = _count(answer.instances)

    def _tell(self, one: Listed, shows_run: bool) -> Told | None:
        run, row = self.opening.run, one.row
        if shows_run and row is not None and run is not None and row.risk is not None:
            return Told(row.instances, row.risk, tuple(run.names[k - 1] for k in row.classes))
        return self._told.get(one.id)


def _tell_asked(plan: Plan, vocabulary: Vocabulary | None) -> str:
    words = [] if vocabulary is None else [list(words) for words in vocabulary.synonyms]
    return json.dumps({"classes": words, "plan": _tell_plan(plan)}, sort_keys=True)


def _tell_plan(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(plan.resume_key()))  # type: ignore[no-any-return]


def _to_answer(ranked: Ranked, began: float) -> Answer:
    """What is handed over first, then the strongest of the rest."""
    found = ranked.found
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.rles, ranked.reasons, strict=True)
    every = [
        Instance(name_instance(name, rle), name, rle, score, kept=not why, verdict=why or "kept")
        for name, score, rle, why in rows
    ]
    every = list({one.id: one for one in reversed(every)}.values())[::-1]
    kept, rest = [one for one in every if one.kept], [one for one in every if not one.kept]
    return Answer(found.size, tuple(kept + rest[:_MOST_REST]), round(time.perf_counter() - began, 4))


def _count(instances: Sequence[Instance]) -> Told:
    kept = [one for one in instances if one.kept]
    things = [Annotation("", (0, 0, 0, 0), None, one.score) for one in kept]
    return Told(len(kept), STORED["doubt"](things, Scale()).value, tuple(Counter(one.name for one in kept)))


def _tell_instance(one: Instance) -> dict[str, Any]:
    return {
        "id": one.id,
        "class": one.name,
        "score": one.score,
        "kept": one.kept,
        "verdict": one.verdict,
        "box": list(one.box),
        "mask": {"size": list(one.rle["size"]), "counts": list_counts(one.rle)},
        "source": one.source,
        "state": one.state,
        "who": one.who,
        "when": one.when,
    }


def _entries(classes: Any) -> Vocabulary:
    return Vocabulary.from_entries(tuple(words) for words in classes)


def _read_classes(rows: Any) -> Vocabulary | None:
    """Read names as the page sends them; None for none."""
    if not isinstance(rows, list) or len(rows) > _MOST_CLASSES or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"expected classes as a list of at most {_MOST_CLASSES} names, got {str(rows)!r:.60}")
    entries = []
    for row in rows:
        more = row.get("synonyms") or []
        words = [row.get("name"), *(more if isinstance(more, list) else [None])]
        told = [" ".join(word.split()) for word in words if isinstance(word, str) and word.isprintable() and "," not in word]
        if len(told) < len(words):
            raise InputError(f"expected a name and synonyms as texts without commas, got {str(row)!r:.80}")
        entries.append(tuple(told))
    return Vocabulary.from_entries(entries) if entries else None
