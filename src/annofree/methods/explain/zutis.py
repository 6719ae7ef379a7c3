"""The steps of ZUTIS, as drawings: what its network proposes, and how much each cell looks like a name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from annofree.clues.background import with_negatives
from annofree.clues.similarity import stretch_to_unit
from annofree.methods.explain.subject import MOST_DRAWN, Subject, format_counts, to_numpy
from annofree.methods.zutis import Zutis, ZutisEncoding, draw_inside
from annofree.render.step_pictures import draw_heat
from annofree.render.steps_page import Drawing, Step
from annofree.structures import Detections

__all__ = ["explain_zutis"]


def explain_zutis(method: Zutis, subject: Subject) -> Iterator[Step]:
    """Draw ZUTIS's proposals and their names for instances, or its likeness to names for label maps."""
    yield from (_instances if subject.task == "instance" else _maps)(method, subject)


def _instances(method: Zutis, subject: Subject) -> Iterator[Step]:
    encoding: ZutisEncoding = subject.encoding
    masks = draw_inside(encoding.masks, encoding.size).cpu().numpy()
    sure = encoding.masks.flatten(1).max(1).values.cpu().numpy()
    found = Detections.from_masks(masks, np.zeros(len(masks), np.int64), np.clip(sure, 0, 1), ("object",))
    words = f"The network proposes {len(masks)} masks before it hears a name; {len(found)} of them have a pixel."
    yield Step(
        "Proposals", words, (subject.draw_nameless(found, f"{len(found)} proposals, by the probability of their best cell"),)
    )
    ranking = method.instances(encoding, subject.asked)
    words = "The mean feature inside a proposal has the name that it is most like; the background's, and what is less, go."
    words += " The connected parts of the label map are proposals, too." if method.settings.parts else ""
    words += " What is narrow somewhere is proposed in pieces besides, cut at its necks." if method.settings.neck else ""
    yield Step("Names", words, (subject.draw(ranking, format_counts(ranking)),))


def _maps(method: Zutis, subject: Subject) -> Iterator[Step]:
    asked = method.background.list_rows(with_negatives(subject.asked, subject.near))
    cosines = method.compute_cosines(subject.encoding, asked)
    things = [k for k, own in enumerate(asked.owner) if own != asked.background]
    chosen = subject.choose_rows(asked.rows.names, things, cosines.argmax(0))[:MOST_DRAWN]
    drawn = [
        Drawing(asked.rows.names[k], draw_heat(subject.image, to_numpy(stretch_to_unit(cosines[k : k + 1])[0]))) for k in chosen
    ]
    words = f"How much each cell looks like a name, each stretched by itself; {len(chosen)} of {len(things)}."
    yield Step("Likeness to each name", words, tuple(drawn))
