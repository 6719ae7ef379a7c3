"""From a method and an image to its steps: the method's own, those of its policy, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from annofree.methods.answering import Answering, Deciding, select_names
from annofree.methods.explain.subject import Explainer, Subject, format_counts, list_some
from annofree.methods.steps.redrawing import Redrawn
from annofree.methods.steps.regions import LabelRegions
from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.render.step_pictures import prepare_canvas
from annofree.render.steps_page import Drawing, Step, write_steps_page
from annofree.structures import Detections, Image, LabelMap, Vocabulary

__all__ = ["DRAWN", "Explanation", "explain_method"]

DRAWN = ("zip", "consensus", "clip_diy", "zutis", "maskcut")
"""The methods whose own steps are drawn; of others the policy and the answer are."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """How a method came to its ``answer`` for an ``image``: its ``steps`` in order, of which the last is the answer."""

    # the image that was asked about
    image: Image
    # the method's name, and settings and models as run.json has them
    provenance: Mapping[str, Any]
    # what was done and drawn, in order
    steps: tuple[Step, ...]
    # what the method answers: instances, or a label map
    answer: Detections | LabelMap
    # the page, where one was written
    page: Path | None = None

    def write(self, out: str | Path) -> Path:
        """Write the steps as a page with their images to a folder, and return index.html.

        Raises InputError where the folder holds something else.
        """
        models = [str(model["name"]) for model in self.provenance.get("models", []) if model.get("name")]
        about = [
            f"How {self.provenance['method']} came to its answer, step by step; each picture is of what the method had then.",
            f"Models: {', '.join(models) or 'none'}. Image of {self.image.size[1]} x {self.image.size[0]} px.",
        ]
        return write_steps_page(Path(out), self.image.id, about, self.steps, "annofree explain")


def explain_method(method: Any, image: Image, vocabulary: Vocabulary, task: str) -> Explanation:
    """Ask a method, under a policy or not, of an image, and draw each step; ``task`` is instance or semantic."""
    encoded = method.encode([image])[0]
    answer = method.instances(encoded, vocabulary) if task == "instance" else method.semantic(encoded, vocabulary)
    steps = [
        Step("The image", f"The names asked for: {list_some(vocabulary.names, 12)}.", (_picture(image),)),
        *_own_steps(method, encoded, image, vocabulary, task),
    ]
    if isinstance(method, Answering) and task == "instance":
        steps.append(_decide(method, encoded, image, vocabulary))
    steps.append(_tell(image, answer))
    return Explanation(image, method.provenance, tuple(steps), answer)


def _picture(image: Image) -> Drawing:
    return Drawing(f"{image.id}, {image.size[1]} x {image.size[0]} px", prepare_canvas(image))


def _own_steps(method: Any, encoded: Any, image: Image, vocabulary: Vocabulary, task: str) -> Iterator[Step]:
    """The steps of the method itself, for the names that it is asked for."""
    subject = Subject(image, encoded, vocabulary, vocabulary, task)
    if isinstance(method, Deciding):
        who = method.find_competing(encoded, vocabulary)
        if len(who.present) < len(vocabulary):
            yield _absent(vocabulary, who.present)
        if not who.present:
            return
        asked = select_names(vocabulary, who.present)
        subject = Subject(image, encoded[0], vocabulary, asked, task, who.others, who.near)
        method = method.method
    elif negatives := getattr(getattr(method, "settings", None), "negatives", ()):
        subject = Subject(image, encoded, vocabulary, vocabulary, task, tuple(negatives), tuple(negatives))
    while isinstance(method, Redrawn | LabelRegions):  # what they make of it is the answer
        subject = replace(subject, encoding=subject.encoding.own) if isinstance(method, Redrawn) else subject
        method = method.method
    name = str(method.provenance["method"])
    if name in DRAWN:
        explainer: Explainer = getattr(import_module(f"annofree.methods.explain.{name}"), f"explain_{name}")
        yield from explainer(method, subject)
    else:
        yield Step("The method", f"{name} has no drawing of its own steps; what follows is what it answers.")


def _absent(vocabulary: Vocabulary, present: tuple[int, ...]) -> Step:
    absent = [name for k, name in enumerate(vocabulary.names) if k not in set(present)]
    words = f"Too little in the image speaks for {list_some(absent)}; of such names only the competition knows from here on."
    return Step("Who may be there", words)


def _decide(method: Answering, encoded: Any, image: Image, vocabulary: Vocabulary) -> Step:
    """What the policy drops of the ranking, and why."""
    ranking, told = method.rank(encoded, vocabulary), method.count_told(vocabulary)
    reasons = np.array(method.policy.explain(ranking, told), dtype=object)
    subject, drawings = Subject(image, None, vocabulary, vocabulary, "instance"), []
    for why in dict.fromkeys(why for why in reasons.tolist() if why):
        gone = ranking[np.flatnonzero(reasons == why)]
        drawings.append(subject.draw(gone, f"{len(gone)} dropped, {why}: {format_counts(gone)}"))
    words = f"Of {len(ranking)} that are ranked {int((reasons == '').sum())} are handed over"
    words += "; the others, by the first reason that dropped them:" if drawings else "."
    return Step("What the policy drops", words, tuple(drawings))


def _tell(image: Image, answer: Detections | LabelMap) -> Step:
    if isinstance(answer, Detections):
        told = format_counts(answer) if len(answer) else "nothing"
        return Step("The answer", f"Found: {told}.", (Drawing(f"the answer: {told}", draw_overlay(image, answer)),))
    shares = {n: s for n, s in answer.compute_shares().items() if n.lower() != "background"}
    told = list_some([f"{name} {100 * share:.0f} %" for name, share in sorted(shares.items(), key=lambda i: -i[1])])
    words = f"Pixels of names: {told or 'none'}."
    return Step("The answer", words, (Drawing("the label map", draw_label_map(image, answer)),))
