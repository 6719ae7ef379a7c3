"""What ``segment`` was asked for: which tasks, done by which methods of which models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, build_unknown_error
from annofree.hub.presets import find_preset
from annofree.methods.registry import (
    PRECISIONS,
    TASKS,
    Entry,
    find_method,
    find_objectness_roles,
    list_objectness_cards,
    split_methods,
)
from annofree.methods.tuning import POLICIES, find_default_method
from annofree.structures import BACKGROUND

if TYPE_CHECKING:
    from annofree.detections.nms import Overlaps
    from annofree.hub.cards import Card
    from annofree.methods.build import MethodSpec
    from annofree.runs.tasks import Tasks
    from annofree.structures import Vocabulary

__all__ = ["DEFAULTS", "DEVICES", "Plan", "parse_negatives", "parse_stuff", "parse_tasks"]

DEFAULTS = {"instance": "zip", "semantic": "clip_diy"}
"""Who does a task that no method was named for, where the whole ranking is asked for; else the preset says it."""

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "meta")
"""Kinds of devices, perhaps with a number behind a colon; whether one is there is asked of torch, later."""


_WITH_DETECTOR = "open_vocabulary"  # who finds instances with a detector, where the preset's own method takes none
_BATCH = 4  # images encoded at once
_SMALL = 100_000_000  # bytes of models up to which that is so on a CPU, too


@dataclass(frozen=True)
class Plan:
    """Which tasks are wanted, and the methods and models that do them; raises InputError for what cannot be done."""

    # of TASKS
    wanted: tuple[str, ...]
    # a method, two joined by +, or None for the preset's own
    method: str | None
    # named settings of the method that is named first, or of all where none is named
    variant: str
    # preset, or names of models joined by +
    models: str
    # source of the objectness, for methods that take one
    objectness: str
    # auto, cpu, cuda, ...
    device: str
    # classes that are no instances, for panoptic maps
    stuff: tuple[str, ...] = ()
    # distractors: they compete with the classes and are dropped
    negatives: tuple[str, ...] = ()
    # of PRECISIONS
    precision: str = "float32"
    # which of two overlapping instances stays, None for what the method and its policy do
    overlaps: Overlaps | None = None
    # of POLICIES
    policy: str = "all"
    # settings that replace those of the variant by name
    settings: Mapping[str, Any] = field(default_factory=dict)
    # the folder of a detector in the place of the preset's, for methods that take one
    detector: Path | None = None
    # the least score that is told, in the place of the policy's
    floor: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str | None):
            raise InputError(f"expected the method by its name or as a folder, got {self.method!r}")
        for what, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("policy", self.policy, POLICIES),
            ("device", self.device.split(":")[0], DEVICES),
        ):
            if value not in known:
                raise build_unknown_error(what, value, known)
        find_objectness_roles(self.objectness)

    def check(self) -> None:
        """Refuse, before anything heavy is imported, unknown methods, variants and models, and tasks that nobody does."""
        find_preset(self.models).find_cards()
        methods = self.resolve_methods().values()
        for name in methods:
            find_method(name, self._variant_of(name))
        if self.detector is not None:
            self._check_detector(self.detector, list(methods))

    def _check_detector(self, folder: Path, methods: list[str]) -> None:
        """Refuse what is no detector, and one that no method takes."""
        if not (folder / "detector.json").is_file():
            raise InputError(f"expected the folder of a detector, as `annofree train detector` writes it, got {folder}")
        if not any(_takes_detector(find_method(name)) for name in methods):
            raise InputError(
                "expected a method that takes a detector, such as consensus or open_vocabulary, got "
                f"{' and '.join(dict.fromkeys(methods))}; "
                f"to ask the detector alone, name it: --method {folder}"
            )

    def resolve_methods(self) -> dict[str, str]:
        """The method of each task that is needed: of the named ones, those that can do least choose first.

        One whose instances are the regions of its label maps finds them where nothing else is needed.  Raises InputError for an
        unknown method, and for one that is left with nothing to do.
        """
        needed = [t for t in DEFAULTS if t in self.wanted or "panoptic" in self.wanted]
        can = {name: _list_tasks(find_method(name), needed) for name in self._names}
        who: dict[str, str] = {}
        for name in sorted(can, key=lambda name: len(can[name])):
            own = [t for t in can[name] if t not in who]
            if not own:
                raise self._idle(name, find_method(name), who)
            who |= dict.fromkeys(own, name)
        return {t: who.get(t) or self._default(t) for t in needed}

    def _default(self, task: str) -> str:
        """The preset's own method, or one that takes the detector that is given, where that does not."""
        own = find_default_method(self.models, task) if self.policy != "all" else DEFAULTS[task]
        given = task == "instance" and self.detector is not None
        return _WITH_DETECTOR if given and not _takes_detector(find_method(own)) else own

    @property
    def _names(self) -> list[str]:
        return [] if self.method is None else split_methods(self.method)

    def _idle(self, name: str, entry: Entry, who: dict[str, str]) -> InputError:
        does = " and ".join(entry.tasks)
        taken = {other: " and ".join(t for t in who if who[t] == other) for t, other in who.items() if t in entry.tasks}
        if taken:
            busy = ", ".join(f"{other} does {tasks}" for other, tasks in taken.items())
            return InputError(f"expected methods with a task each, but {busy}, so {name} is left with none")
        return InputError(f"expected a method for {', '.join(self.wanted)}, but {name} does {does}; ask for --task {does}")

    def to_run_json(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {**self.resume_key(), "tasks": list(self.wanted), "stuff": list(self.stuff)}

    def resume_key(self) -> dict[str, Any]:
        """What has to be the same for a run to resume, beside classes, tasks and stuff."""
        return {
            "method": None if self.method is None else "+".join(self._names),
            "models": self.models,
            "variant": self.variant,
            "objectness": self.objectness,
            "precision": self.precision,
            "overlaps": None if self.overlaps is None else asdict(self.overlaps),
            "policy": self.policy,
            "methods": self.resolve_methods(),
            "negatives": list(self.negatives),
            **({"settings": dict(self.settings)} if self.settings else {}),
            **({"detector": str(self.detector.resolve())} if self.detector else {}),
            **({} if self.floor is None else {"floor": self.floor}),
        }

    def list_cards(self) -> list[Card]:
        """The cards of the models that the methods need, and of no others; raises InputError as ``resolve_methods`` does."""
        entries = [find_method(name, self._variant_of(name)) for name in self.resolve_methods().values()]
        roles = {role for entry in entries for role in entry.list_roles(self.objectness, self.settings)}
        own = [card for entry in entries for card in entry.cards]
        own += list_objectness_cards(self.objectness) if any(entry.objectness for entry in entries) else ()
        if self.detector is not None:
            from annofree.methods.detector import read_card

            own, roles = [*own, read_card(self.detector)], roles - {"detector"}
        return own + list(find_preset(self.models).select_cards(roles).values())

    def count_at_once(self, asked: int | None, device: str | None = None) -> int:
        """How many images are encoded together: as asked, else 4, but one at a time where a CPU takes long for each.

        A batch gains no speed there, and none of it is kept before all of it is done.  ``device`` does it, where that is known.
        """
        if asked is not None:
            return asked
        from annofree.methods.components import resolve_device

        weighty = sum(card.size for card in self.list_cards()) > _SMALL
        return 1 if weighty and (device or resolve_device(self.device)) == "cpu" else _BATCH

    def make_specs(self) -> dict[str, MethodSpec]:
        """How each method is assembled, by task; raises InputError for negatives that no method can let compete."""
        specs = {task: self._spec(name) for task, name in self.resolve_methods().items()}
        if self.negatives and not any(spec.find_competing() or self._competes(spec) for spec in specs.values()):
            names = " and ".join(dict.fromkeys(spec.method for spec in specs.values()))
            raise InputError(
                f"--negatives compete with the names, and {names} takes none, or tells the "
                "background without words; leave them out, or take a method such as zip, clip_diy or zutis"
            )
        return specs

    def _spec(self, name: str) -> MethodSpec:
        from annofree.methods.build import MethodSpec

        own: dict[str, Any] = {} if self.overlaps is None else {"overlaps": asdict(self.overlaps)}
        own |= {} if self.floor is None else {"floor": self.floor}
        return MethodSpec(
            name,
            self._variant_of(name),
            self.models,
            self.device,
            self.precision,
            self.settings,
            objectness=self.objectness if find_method(name).objectness else "found",
            policy=own if own and self.policy != "all" else self.policy,
            negatives=self.negatives,
            stuff=self.stuff,
            parts={"detector": self.detector} if self.detector and _takes_detector(find_method(name)) else {},
        )

    def _variant_of(self, name: str) -> str:
        return self.variant if name in (self._names or [name])[:1] else "default"

    def _competes(self, spec: MethodSpec) -> bool:
        """Whether a policy lets names compete, so that negatives may win."""
        return self.policy != "all" and "clip" in spec.entry.needs

    def load_tasks(self, vocabulary: Vocabulary) -> Tasks:
        """Build the methods and put them to their tasks; a method of several tasks is built once."""
        from annofree.detections.nms import Overlaps
        from annofree.runs.tasks import Tasks

        specs = self.make_specs()
        built = {spec.method: spec.build(vocabulary) for spec in {spec.method: spec for spec in specs.values()}.values()}
        methods = {task: built[spec.method] for task, spec in specs.items()}
        policy = self.overlaps or Overlaps()
        return Tasks(self.wanted, methods.get("instance"), methods.get("semantic"), self.stuff, overlaps=policy)


def _takes_detector(entry: Entry) -> bool:
    return "detector" in (*entry.needs, *entry.takes)


def _list_tasks(entry: Entry, needed: Sequence[str]) -> list[str]:
    """Which of the tasks that are needed fall to a method."""
    able: list[str] = [task for task in entry.tasks if task in needed]
    return ["semantic"] if entry.regions and len(able) > 1 else able


def parse_tasks(task: str | Iterable[str]) -> tuple[str, ...]:
    """Read tasks, joined by commas or listed; raises InputError for an unknown one."""
    wanted = _parse_names(task)
    if not wanted:
        raise InputError(f"expected a task, got none; name one of {', '.join(TASKS)}")
    for part in wanted:
        if part not in TASKS:
            raise build_unknown_error("task", part, TASKS)
    return wanted


def parse_stuff(stuff: str | Iterable[str] | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Read classes of stuff, joined by commas or listed; raises InputError for one that is no class, and for the background."""
    names = _parse_names(stuff or ())
    for name in names:
        if name not in vocabulary.names:
            raise build_unknown_error("stuff among the classes", name, vocabulary.names)
        if name.lower() == BACKGROUND:
            raise InputError(f"expected stuff with a name of its own, got {name!r}, which is no segment; leave it out")
    return names


def parse_negatives(negatives: str | Iterable[str] | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Read distractors, joined by commas or listed; raises InputError for one that is a class, and for an empty one."""
    names = _parse_names(negatives or ())
    for name in names:
        if not name:
            raise InputError(f"a name is empty among the negatives {negatives!r}; remove the extra comma")
        if name.lower() in {known.lower() for known in vocabulary.names}:
            raise InputError(f"expected negatives apart from the classes, got {name!r} as both; choose one")
    return names


def _parse_names(given: str | Iterable[str]) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(" ".join(part.split()) for part in parts))
