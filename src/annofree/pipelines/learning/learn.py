"""Photographs and names in; labels, and a detector that was learned from them, out.

    segment -> choose labels -> train -> segment again with what was learned -> ...

OUT
├── learn.json      what was asked, the figures of each round, which was the best, and why it ended
├── page/           what changed, in a browser
├── first/          the run of the method alone
├── round-1/        labels/, detector/ and run/ of a round; and so on
├── labels/         the best round's answer, of all images: labels.json (COCO) and a sheet
├── detector/       the best round's detector, a method like any other
└── detector.onnx   the same for elsewhere, where annofree[onnx] is installed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.errors import InputError
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.io.image_inputs import ImageInput
    from annofree.structures import Classes

__all__ = ["Learned", "learn"]


@dataclass(frozen=True)
class Learned:
    """The ``folder`` of a learning that has ended, and what its learn.json holds."""

    folder: Path
    summary: dict[str, Any]

    @property
    def labels(self) -> Path:
        """The labels of all images, as COCO; no file where no round found anything that it is sure of."""
        return self.folder / "labels" / "labels.json"

    @property
    def detector(self) -> Path:
        """The folder of the detector, for `annofree segment --method` or `--detector`."""
        return self.folder / "detector"

    @property
    def page(self) -> Path:
        """What changed, to look at."""
        return self.folder / "page" / "index.html"


def learn(
    images: ImageInput | Iterable[ImageInput],
    classes: Classes,
    out: str | Path,
    *,
    rounds: int = 2,
    minutes: float = 60.0,
    steps: int | None = None,
    min_labels: int = 10,
    bank: bool | None = None,
    models: str = "fast",
    method: str | None = None,
    config: str | Path | None = None,
    corrections: str | Path | None = None,
    device: str = "auto",
    limit: int | None = None,
    max_tier: str | None = None,
    license: str | None = None,  # noqa: A002 -- the word of the option
    callbacks: Callbacks = Callbacks(),
) -> Learned:
    """Label images with a method, train a detector on the labels, and label again with it, as long as it helps.

    ``rounds`` is how many detectors are trained at most, ``minutes`` what all of it may take: as many steps of training as fit
    are taken, unless ``steps`` says how many a round has.  A name with less than ``min_labels`` is told before anything is
    trained.  ``models``, ``method``, ``device``, ``limit``, ``max_tier`` and ``license`` are those of ``segment``; ``config``
    is a TOML file with fields of ``DetectorRecipe`` in the place of the preset's own.  ``bank`` lets what is told surely in a
    round name and weigh what looks like it, as ``relabel`` does; None does so where that was fitted to the models.
    ``corrections`` is a run of the same images, or a workspace of ``annofree serve``: the labels of the images that people
    corrected there are taken as they are, in every round.

    The same call goes on after a kill, with the same steps.  No label is needed to tell whether a round helped: answers to
    images that no detector was trained on are held against those to their mirror images, and against the round before.

    Raises InputError for what ``segment`` and ``train_detector`` refuse, for a folder with another learning, with something
    where a learning writes, or in a run or a detector, where no image can be read, and where nothing is found to learn from;
    MissingError for weights that are not to be had.

    >>> learn("examples/scenes", "dog", "learned", rounds=0)
    Traceback (most recent call last):
    annofree.errors.InputError: expected rounds of at least 1, got 0
    """
    check_range("rounds", rounds, 1)
    check_range("minutes", minutes, 0, 525_600)
    check_range("steps", steps, 1)
    check_range("min_labels", min_labels, 1)
    check_range("limit", limit, 1)
    from annofree.pipelines.plan import Plan

    plan = Plan(("instance",), method, "default", models, "found", device, policy="answer")
    plan.check()
    _require_names(plan, bank)
    if max_tier is not None or license is not None:
        from annofree.hub.license_policy import check

        check(plan.list_cards(), max_tier, license)
    if config is not None:
        from annofree.io.settings_file import read_toml

        read_toml(Path(config), "a recipe")  # what is none is refused before torch is imported
    if max_tier is not None or license is not None:
        from annofree.pipelines.learning.effort import list_initial_cards

        check(list_initial_cards(models, None if config is None else Path(config)), max_tier, license)
    from annofree.runs.inputs import open_inputs

    out = Path(out)
    inputs = open_inputs(images, exclude=out, limit=limit)
    if inputs.opened:
        raise InputError("expected images in files, as labels name them, got images in memory; save them and name the folder")
    for remark in inputs.remarks:
        callbacks.on_note(remark)
    from annofree.io.atomic import make_folder
    from annofree.io.files.lock import hold_lock
    from annofree.pipelines.learning.place import require_own_place
    from annofree.pipelines.learning.rounds import Learning

    asked = {"rounds": rounds, "minutes": minutes, "steps": steps, "min_labels": min_labels, "bank": bank}
    require_own_place(out)
    make_folder(out)
    with hold_lock(out / "lock", f"expected one learning at a time in {out}, and another is at work; wait for it"):
        learning = Learning(
            inputs,
            Vocabulary.of(classes),
            plan,
            out,
            asked,
            None if config is None else Path(config),
            callbacks,
            None if corrections is None else Path(corrections),
        )
        return Learned(out, learning.run())


def _require_names(plan: Any, bank: bool | None) -> None:
    """Refuse methods that find things without names, stored masks, which no round could change, and banks without CLIP."""
    from annofree.methods.registry import find_method

    for name in plan.resolve_methods().values():
        entry = find_method(name)
        if entry.class_agnostic or entry.stored:
            raise InputError(f"expected a method that looks at images and names what it finds, got {name}; leave --method out")
        if bank and "clip" not in entry.needs:
            raise InputError(f"expected a method whose candidates CLIP names for a bank, got {name}; leave --bank out")
