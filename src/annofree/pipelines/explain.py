"""One image and names in; how a method comes to its answer out, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError
from annofree.methods.registry import find_method, is_class_agnostic, locate_detector, split_methods
from annofree.pipelines.plan import Plan, parse_negatives, parse_tasks
from annofree.structures import Vocabulary

if TYPE_CHECKING:
    from annofree.io.image_inputs import ImageInput
    from annofree.methods.explain.explain import Explanation
    from annofree.structures import Classes, Image

__all__ = ["explain"]


def explain(
    image: ImageInput,
    classes: Classes | None = None,
    *,
    out: str | Path | None = None,
    task: str | None = None,
    method: str | None = None,
    variant: str = "default",
    models: str = "fast",
    objectness: str = "found",
    policy: str = "answer",
    negatives: str | Iterable[str] | None = None,
    device: str = "auto",
) -> Explanation:
    """Ask a method of one image, draw each of its steps, and with ``out`` write them there as a page with images.

    The options are those of ``segment``; ``task`` is instance or semantic, by default what the method can do, instances first.
    Nothing is computed otherwise than by the method itself: the last step is the answer that ``segment`` gives.

    Raises InputError for what is not one image, for an ``out`` that lies in a run or holds something else, and as ``segment``
    does.

    >>> import annofree
    >>> how = annofree.explain("examples/scenes/oranges.jpg", "orange", models="tiny", device="cpu")
    >>> [step.title for step in how.steps][-2:], type(how.answer).__name__
    (['What the policy drops', 'The answer'], 'Detections')
    """
    method, models = locate_detector(method, models)
    if classes is None and not is_class_agnostic(method):
        raise InputError('expected the names of the classes, such as "dog, cat", got none; pass --classes')
    vocabulary = Vocabulary.of("object" if classes is None else classes)
    asked = _choose_task(task, method)
    plan = Plan(
        (asked,), method, variant, models, objectness, device, (), parse_negatives(negatives, vocabulary), policy=policy
    )
    plan.check()
    if out is not None:
        from annofree.render.page_folder import check_page_folder
        from annofree.runs.outside import require_outside_runs

        require_outside_runs(Path(out))
        check_page_folder(Path(out), "annofree explain", ("images",))
    opened = _open_only(image)
    from annofree.methods.explain.explain import explain_method

    found = explain_method(plan.make_specs()[asked].build(vocabulary), opened, vocabulary, asked)
    return found if out is None else replace(found, page=found.write(out))


def _choose_task(task: str | None, method: str | None) -> str:
    """The one task that is explained; raises InputError for several, and for several methods."""
    names = [] if method is None else split_methods(method)
    if len(names) > 1:
        raise InputError(f"expected one method to explain, got {method}; name one of {', '.join(names)}")
    if task is None:
        entry = find_method(names[0]) if names else None
        return "instance" if entry is None else "semantic" if entry.regions else entry.tasks[0]
    wanted = parse_tasks(task)
    if len(wanted) > 1 or wanted[0] == "panoptic":
        raise InputError(f"expected the task instance or semantic, for one is explained at a time, got {task}")
    return wanted[0]


def _open_only(image: ImageInput) -> Image:
    """Open the one image that is meant."""
    from annofree.runs.inputs import open_inputs

    inputs = open_inputs(image, limit=2)
    if len(inputs.ids) != 1:
        raise InputError(f"expected one image to explain, got {', '.join(inputs.ids) or 'none'} and maybe more; name one")
    return inputs.read(inputs.place(inputs.ids[0]), inputs.ids[0])
