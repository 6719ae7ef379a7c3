"""What ``annofree segment`` was asked for: which tasks, done by which methods of which models."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError, unknown_name

if TYPE_CHECKING:
    from annofree.detections.nms import Overlaps
    from annofree.hub.cards import Card
    from annofree.methods.components import Models
    from annofree.methods.registry import Entry
    from annofree.runs.tasks import Tasks
    from annofree.structures import Vocabulary

__all__ = [
    "DEFAULTS",
    "OVERLAPS",
    "POLICIES",
    "Plan",
    "negative_names",
    "policy_named",
    "precision_named",
    "stuff_names",
    "wanted_tasks",
]

DEFAULTS = {"instance": "zip", "semantic": "clip_diy"}
"""Who does a task that no method was named for, where the whole ranking is asked for; else the preset says it."""

POLICIES = ("answer", "all")
"""Which instances are told: those of the preset's policy, or the whole ranking."""

OVERLAPS = (
    "Which of two instances that overlap stays, such as within=0.5, across=0.8, inside=0.9, inside-across=0.95, prefer=whole; "
    "else as the method leaves them."
)
"""The help of --overlaps."""


@dataclass(frozen=True)
class Plan:
    """What is wanted, and of what it is done."""

    wanted: tuple[str, ...]
    method: str | None
    variant: str
    models: str
    objectness: str
    device: str
    stuff: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    precision: str = "float32"
    overlaps: Overlaps | None = None
    policy: str = "all"

    def named(self) -> dict[str, str]:
        """The method of each task that is needed: of the named ones, those that can do least choose first.

        Raises InputError for an unknown method, and for one that is left with nothing to do.
        """
        from annofree.methods.registry import entry_of

        needed = [t for t in DEFAULTS if t in self.wanted or "panoptic" in self.wanted]
        can = {name: [t for t in entry_of(name).tasks if t in needed] for name in self._names}
        who: dict[str, str] = {}
        for name in sorted(can, key=lambda name: len(can[name])):
            own = [t for t in can[name] if t not in who]
            if not own:
                raise self._idle(name, entry_of(name), who)
            who |= dict.fromkeys(own, name)
        return {t: who.get(t) or self._default(t) for t in needed}

    def _default(self, task: str) -> str:
        from annofree.methods.tuning import default_method

        return default_method(self.models, task) if self.policy != "all" else DEFAULTS[task]

    @property
    def _names(self) -> list[str]:
        from annofree.methods.registry import method_named

        return [] if self.method is None else [method_named(name.strip()) for name in self.method.split("+")]

    def _idle(self, name: str, entry: Entry, who: dict[str, str]) -> InputError:
        does = " and ".join(entry.tasks)
        taken = {other: " and ".join(t for t in who if who[t] == other) for t, other in who.items() if t in entry.tasks}
        if taken:
            busy = ", ".join(f"{other} does {tasks}" for other, tasks in taken.items())
            return InputError(f"expected methods with a task each, but {busy}, so {name} is left with none")
        return InputError(f"expected a method for {', '.join(self.wanted)}, but {name} does {does}; ask for --task {does}")

    def asked(self) -> dict[str, Any]:
        """What has to be asked again for a run to go on, beside classes, tasks and stuff."""
        own: dict[str, Any] = {
            "method": None if self.method is None else "+".join(self._names),
            "models": self.models,
            "variant": self.variant,
            "objectness": self.objectness,
        }
        own |= {"precision": self.precision, "overlaps": None if self.overlaps is None else asdict(self.overlaps)}
        own |= {"policy": self.policy}
        return own | {"methods": self.named(), "negatives": list(self.negatives)}

    def told(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {**self.asked(), "tasks": list(self.wanted), "stuff": list(self.stuff)}

    def cards(self) -> list[Card]:
        """The cards of the models that the methods need, and of no others; raises InputError as ``named`` does."""
        from annofree.hub.presets import preset_named
        from annofree.methods.components import OBJECTNESS_ROLES
        from annofree.methods.registry import entry_of

        self._check_objectness()
        entries = [entry_of(name) for name in self.named().values()]
        roles = {role for e in entries for role in (*e.needs, *(OBJECTNESS_ROLES[self.objectness] if e.objectness else ()))}
        own = [card for e in entries for card in e.cards]
        return own + [card for role, card in preset_named(self.models).cards().items() if role in roles]

    def _check_objectness(self) -> None:
        from annofree.methods.components import OBJECTNESS_ROLES

        if self.objectness not in OBJECTNESS_ROLES:
            raise unknown_name("objectness source", self.objectness, OBJECTNESS_ROLES)

    def tasks(self, vocabulary: Vocabulary) -> Tasks:
        """Load what the tasks need; the variant is that of the method named first, or of all where none is named."""
        from annofree.detections.nms import Overlaps
        from annofree.runs.tasks import Tasks

        self._check_objectness()
        who = self.named()
        self._check_negatives(who.values())
        loaded = {name: self._loaded(name, vocabulary) for name in dict.fromkeys(who.values())}
        parts = {task: loaded[name] for task, name in who.items()}
        policy = self.overlaps or Overlaps()
        return Tasks(self.wanted, parts.get("instance"), parts.get("semantic"), self.stuff, overlaps=policy)

    def _loaded(self, name: str, vocabulary: Vocabulary) -> Any:
        from annofree.methods.registry import entry_of, load

        variant = self._variant_of(name)
        entry = entry_of(name, variant)
        changes = self._against(name)
        own = {"overlaps": asdict(self.overlaps)} if self.overlaps and self.policy != "all" else None
        deciding: dict[str, Any] = {"policy": own or self.policy, "distractors": self.negatives}
        if entry.objectness and self.objectness == "instances":
            return self._on_instances(name, variant, vocabulary, changes, deciding)
        asked: dict[str, Any] = {"objectness": self.objectness} if entry.objectness else {}
        asked |= {"settings": changes} if changes else {}
        asked |= deciding if self.policy != "all" else {}
        return load(name, models=self.models, variant=variant, device=self.device, precision=self.precision, **asked)

    def _variant_of(self, name: str) -> str:
        return self.variant if name in (self._names or [name])[:1] else "default"

    def _check_negatives(self, names: Collection[str]) -> None:
        """Refuse negatives where no method weighs names against each other."""
        if self.negatives and not any(self._against(name) or self._competes(name) for name in names):
            raise InputError(
                f"--negatives compete with the names, and {' and '.join(dict.fromkeys(names))} takes none, or tells the "
                "background without words; leave them out, or take a method such as zip, clip_diy or zutis"
            )

    def _competes(self, name: str) -> bool:
        """Whether a policy lets names compete, so that negatives may win."""
        from annofree.methods.registry import entry_of

        entry = entry_of(name)
        return self.policy != "all" and "clip" in entry.needs

    def _against(self, name: str) -> dict[str, Any]:
        """What to change in a method's settings so that negatives compete; nothing where they cannot."""
        from annofree.clues.background import Background
        from annofree.methods.registry import entry_of

        variant = self._variant_of(name)
        settings = entry_of(name, variant).variants.get(variant)
        if self.negatives and hasattr(settings, "negatives"):
            return {"negatives": self.negatives}
        own = getattr(settings, "background", None)
        if not self.negatives or not own:
            return {}
        if isinstance(own, Background):
            return {"background": {"words": (*own.words, *self.negatives)}} if own.rule == "words" else {}
        return {"background": (*own, *self.negatives)}

    def _parts(self, objectness: str) -> Models:
        from annofree.methods.components import Models

        return Models(self.models, self.device, objectness=objectness, precision=self.precision)

    def _on_instances(
        self, name: str, variant: str, vocabulary: Vocabulary, changes: dict[str, Any], deciding: dict[str, Any]
    ) -> Any:
        """Build a method whose objectness is what Zip finds of the names that may be things."""
        from annofree.methods.registry import build, decided, entry_of
        from annofree.structures import Vocabulary

        parts = self._parts("instances")
        parts.fetch(entry_of(name).roles(parts))
        things = [words for words in vocabulary.synonyms if words[0] not in self.stuff and not _is_background(words[0])]
        asked = Vocabulary.from_entries(things or vocabulary.synonyms)
        parts = parts.having(segmenter=build("zip", parts), classes=asked)
        return decided(build(name, parts, variant, changes), name, parts, **deciding)


def precision_named(name: str) -> str:
    """Return a precision that models can compute in; raises InputError for others."""
    from annofree.methods.components import PRECISIONS

    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return name


def policy_named(name: str) -> str:
    """Return a policy; raises InputError for others."""
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return name


def wanted_tasks(task: str) -> tuple[str, ...]:
    """Read tasks joined by commas; raises InputError for an unknown one."""
    from annofree.runs.tasks import TASKS

    wanted = tuple(dict.fromkeys(part.strip() for part in task.split(",")))
    for part in wanted:
        if part not in TASKS:
            raise unknown_name("task", part, TASKS)
    return wanted


def stuff_names(stuff: str | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Read names of stuff joined by commas; raises InputError for one that is no class, and for the background."""
    names = tuple(dict.fromkeys(" ".join(part.split()) for part in stuff.split(","))) if stuff else ()
    for name in names:
        if name not in vocabulary.names:
            raise unknown_name("stuff among the classes", name, vocabulary.names)
        if _is_background(name):
            raise InputError(f"expected stuff with a name of its own, got {name!r}, which is no segment; leave it out")
    return names


def negative_names(negatives: str | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Read names that compete joined by commas; raises InputError for one that is asked for, and for an empty one."""
    names = tuple(dict.fromkeys(" ".join(part.split()) for part in negatives.split(","))) if negatives else ()
    for name in names:
        if not name:
            raise InputError(f"a name is empty among the negatives {negatives!r}; remove the extra comma")
        if name.lower() in {known.lower() for known in vocabulary.names}:
            raise InputError(f"expected negatives apart from the classes, got {name!r} as both; choose one")
    return names


def _is_background(name: str) -> bool:
    from annofree.clues.background import BACKGROUND

    return name.lower() == BACKGROUND
