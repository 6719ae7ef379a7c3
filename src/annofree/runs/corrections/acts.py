"""What people do with the answer to an image, and what comes of it: acts in order, of which the last can be undone.

    accept, reject, delete, rename, replace   an instance, the machine's or a person's
    add                                       one of a person's own
    reviewed, unreviewed                      the image: what is left is right, and accepted; or it has to be looked at again

An act on an instance of the machine holds what that was (``of``), so that what people decided stands by itself: it stays when
the machine is asked again, for other names or by another method.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from annofree.errors import InputError, build_unknown_error
from annofree.ops.rle import RLE, compute_rle_box, compute_rle_ious, decode_rle, encode_rle
from annofree.structures.coco_rows import encode_segmentation

__all__ = ["ACTS", "History", "Instance", "Present", "combine", "name_instance", "prepare_acts", "read_mask"]

ACTS = ("accept", "reject", "delete", "rename", "add", "replace", "reviewed", "unreviewed")
"""What can be done."""

State = Literal["open", "accepted", "rejected", "deleted"]
Act = dict[str, Any]

_SAME = 0.8  # mask IoU from which on an instance of the machine is one that was decided on
_MOST_ACTS, _MOST_RUNS, _LONGEST_NAME = 1000, 1_000_000, 200


@dataclass(frozen=True, eq=False)
class Instance:
    """One instance of an image: what it is, where, and who says so."""

    # by its content if it is the machine's, so that the same answer has the same ids
    id: str
    name: str
    rle: RLE
    # None where a person drew it
    score: float | None = None
    # who found it, or changed it last
    source: Literal["machine", "human"] = "machine"
    # what a person decided
    state: State = "open"
    who: str | None = None
    when: str | None = None
    # whether it is among what the machine hands over, and else why not
    kept: bool = True
    verdict: str = "kept"
    # whether it was accepted with the image, not by itself
    by_review: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The tight box of its mask, x0 y0 x1 y1 px."""
        return compute_rle_box(self.rle)

    @property
    def labels(self) -> bool:
        """Whether it is a label."""
        return self.state == "accepted" or (self.state == "open" and self.kept)


@dataclass(frozen=True, eq=False)
class Present:
    """What people have decided on an image."""

    # instances that were decided on, by id
    decided: Mapping[str, Instance] = field(default_factory=dict)
    # whether what is left was looked at, and is right
    reviewed: bool = False
    # by whom, and when
    who: str | None = None
    # in UTC, as ISO 8601 has it
    when: str | None = None

    @property
    def corrected(self) -> int:
        """How many instances were decided on one by one."""
        return sum(not one.by_review for one in self.decided.values())


@dataclass
class History:
    """The acts on one image, in groups that are undone together; ``revision`` counts all that happened, undoing too.

    ``size`` (H, W) is that of the image.
    """

    size: tuple[int, int] = (0, 0)
    revision: int = 0
    done: list[Mapping[str, Any]] = field(default_factory=list)
    undone: list[Mapping[str, Any]] = field(default_factory=list)
    _folded: Present | None = None

    def record(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the journal; raises InputError for one that does not follow."""
        if line["revision"] != self.revision + 1:
            raise InputError(
                f"expected revision {self.revision + 1} of {line['image']} next in the journal, got {line['revision']}; "
                "put a copy in its place"
            )
        if "acts" in line:
            self.done.append(line)
            self.undone.clear()
            self.size = (int(line["size"][0]), int(line["size"][1]))
        elif not self.has_step("undo" if line.get("undo") else "redo"):
            raise InputError(f"expected something to undo or redo in {line['image']}, got nothing; put a copy in its place")
        elif line.get("undo"):
            self.undone.append(self.done.pop())
        else:
            self.done.append(self.undone.pop())
        self.revision, self._folded = line["revision"], None

    def has_step(self, way: str) -> bool:
        """Whether there is something to ``undo``, or to ``redo``."""
        return bool(self.done if way == "undo" else self.undone)

    def fold(self) -> Present:
        """What came of all acts that were not undone."""
        if self._folded is None:
            present = Present()
            for line in self.done:
                for act in line["acts"]:
                    present = _apply(present, act, str(line["who"]), str(line["when"]), self.size)
            self._folded = present
        return self._folded


def name_instance(name: str, rle: RLE) -> str:
    """The id of an instance of the machine, the same wherever it is found with the same name and mask.

    >>> name_instance("dog", encode_rle([[1, 1, 1], [1, 1, 1]]))
    'm8d0dc0674923'
    """
    return "m" + hashlib.sha256(f"{name}\n{rle['size']}\n".encode() + bytes(rle["counts"])).hexdigest()[:12]


def _apply(present: Present, act: Act, who: str, when: str, size: tuple[int, int]) -> Present:
    kind, decided = act["act"], dict(present.decided)
    if kind == "reviewed":
        for of in act["accepted"]:
            kept = _read_of(of["instance"], of, size)
            decided.setdefault(kept.id, replace(kept, state="accepted", who=who, when=when, by_review=True))
        return Present(decided, True, who, when)
    if kind == "unreviewed":
        return Present({id_: one for id_, one in decided.items() if not one.by_review})
    id_ = act["instance"]
    if kind == "add":
        rle = _unpack(act["counts"], size)
        decided[id_] = Instance(id_, act["class"], rle, None, "human", "accepted", who, when)
        return replace(present, decided=decided)
    one = decided.get(id_) or _read_of(id_, act["of"], size)
    changes: dict[str, Any] = {"who": who, "when": when, "by_review": False, "kept": True, "verdict": "kept"}
    if kind == "delete":
        changes["state"] = "deleted"
    elif kind == "reject":
        changes["state"] = "rejected"
    else:
        changes["state"] = "accepted"
    if kind == "rename":
        changes |= {"name": act["class"], "source": "human"}
    elif kind == "replace":
        changes |= {"rle": _unpack(act["counts"], size), "source": "human", "score": None}
        changes |= {"name": act["class"]} if "class" in act else {}
    decided[id_] = replace(one, **changes)
    return replace(present, decided=decided)


def _read_of(id_: str, of: Mapping[str, Any], size: tuple[int, int]) -> Instance:
    return Instance(id_, of["class"], _unpack(of["counts"], size), of.get("score"))


def _unpack(counts: str, size: tuple[int, int]) -> RLE:
    return {"size": list(size), "counts": counts.encode("ascii")}


def combine(machine: Sequence[Instance], present: Present) -> list[Instance]:
    """The answer as it stands: what people decided, but for the deleted, and what the machine says beside that, as it came.

    An instance of the machine that was decided on before gives way, also where its mask is a little different now; what a
    person added comes last.  In a
    reviewed image what is left of the machine is kept no more: it was not there when a person looked, or was left out.
    """
    decided = list(present.decided.values())
    shown: list[Instance] = []
    placed: set[str] = set()
    for one in machine:
        same = present.decided.get(one.id) or _find_same(one, decided)
        if same is None:
            shown.append(
                one if not (present.reviewed and one.kept) else replace(one, kept=False, verdict="left out by a person")
            )
        elif same.id == one.id:
            placed.add(same.id)
            shown.append(same)
    shown += [one for one in decided if one.id not in placed]
    return [one for one in shown if one.state != "deleted"]


def _find_same(one: Instance, decided: Sequence[Instance]) -> Instance | None:
    """The decided instance that one of the machine is: what was rejected or deleted is so under its name alone."""
    rivals = [d for d in decided if d.rle["size"] == one.rle["size"] and (d.state == "accepted" or d.name == one.name)]
    if not rivals:
        return None
    ious = compute_rle_ious([one.rle], [d.rle for d in rivals])[0]
    best = int(ious.argmax())
    return rivals[best] if ious[best] >= _SAME else None


def prepare_acts(asked: Any, shown: Sequence[Instance], history: History, size: tuple[int, int], revision: int) -> list[Act]:
    """Check acts that are asked for on the answer as it is ``shown``, and complete them as the journal keeps them.

    Raises InputError for what is no act, for an instance that is not there, and for names and masks that cannot be.
    """
    if not isinstance(asked, list) or not 0 < len(asked) <= _MOST_ACTS or not all(isinstance(one, dict) for one in asked):
        raise InputError(f"expected a list of 1 to {_MOST_ACTS} acts, got {str(asked)!r:.80}")
    there = {one.id: one for one in shown}
    present = history.fold()
    acts: list[Act] = []
    for k, one in enumerate(asked):
        act = _prepare(one, there, present, size, f"h{revision}" + (f"-{k}" if k else ""))
        present = _apply(present, act, "", "", size)
        there = {**there, **present.decided}
        acts.append(act)
    return acts


def _prepare(one: Act, there: Mapping[str, Instance], present: Present, size: tuple[int, int], new: str) -> Act:
    kind = one.get("act")
    if not isinstance(kind, str) or kind not in ACTS:
        raise build_unknown_error("act", str(kind)[:40], ACTS)
    if kind == "unreviewed":
        return {"act": kind}
    if kind == "reviewed":
        return {"act": kind, "accepted": _list_left(there, present, one.get("score_floor"))}
    if kind == "add":
        return {"act": kind, "instance": new, "class": _read_name(one.get("class")), "counts": _read_counts(one, size)}
    id_ = one.get("instance")
    if not isinstance(id_, str) or id_ not in there or there[id_].state == "deleted":
        raise InputError(f"expected an instance of this image, got {str(id_)!r:.40}; load the image again")
    act: Act = {"act": kind, "instance": id_}
    if kind == "rename" or (kind == "replace" and one.get("class") is not None):
        act["class"] = _read_name(one.get("class"))
    if kind == "replace":
        act["counts"] = _read_counts(one, size)
    return act if id_ in present.decided else act | {"of": _tell(there[id_])}


def _list_left(there: Mapping[str, Instance], present: Present, floor: Any) -> list[Act]:
    """What is accepted with the image: all that the machine hands over and nobody decided on; or all that score so much."""
    if floor is not None and (isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1):
        raise InputError(f"expected a score_floor from 0 to 1, got {str(floor)!r:.40}")
    left = [one for one in there.values() if one.id not in present.decided and one.state == "open"]
    seen = [one for one in left if (one.kept if floor is None else (one.score or 0.0) >= floor)]
    return [{"instance": one.id, **_tell(one)} for one in seen]


def _tell(one: Instance) -> dict[str, Any]:
    return {"class": one.name, "counts": one.rle["counts"].decode("ascii"), "score": one.score}


def _read_name(name: Any) -> str:
    text = " ".join(name.split()) if isinstance(name, str) else ""
    if not text or len(text) > _LONGEST_NAME or not text.isprintable() or "," in text:
        raise InputError(f"expected a class name of 1 to {_LONGEST_NAME} letters without a comma, got {str(name)!r:.40}")
    return text


def _read_counts(act: Act, size: tuple[int, int]) -> str:
    return str(read_mask(act.get("mask"), size)["counts"].decode("ascii"))


def read_mask(drawn: Any, size: tuple[int, int]) -> RLE:
    """Read a mask, plain or compressed run lengths of an image of ``size`` (H, W); raises InputError for any other.

    >>> read_mask({"size": [2, 3], "counts": [2, 4]}, (2, 3))
    {'size': [2, 3], 'counts': b'24'}
    """
    counts = drawn.get("counts") if isinstance(drawn, dict) else None
    plain = isinstance(counts, list) and len(counts) <= _MOST_RUNS and all(type(n) is int and n >= 0 for n in counts)
    if not (plain or isinstance(counts, str)) or not isinstance(drawn.get("size"), list):
        raise InputError(f"expected a mask as {{size: [h, w], counts: run lengths}}, got {str(drawn)!r:.60}")
    if drawn["size"] != list(size):
        raise InputError(f"expected a mask of the size (H, W) {size} of its image, got {str(drawn['size'])!r:.40}")
    try:
        rle = encode_segmentation(drawn, size)
        mask = None if rle is None else decode_rle(rle)
    except (InputError, ValueError) as problem:
        raise InputError(f"expected run lengths of {size[0]} x {size[1]} pixels, got others: {problem!s:.120}") from None
    if mask is None or not mask.any():
        raise InputError("expected a mask with some pixels, got an empty one; draw it again, or delete the instance")
    return encode_rle(mask)
