"""The steps of Zip, as drawings: clue, clusters, edges, fragments, boxes, SAM's first and refined masks, the ranking."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from annofree.methods.explain.subject import MOST_DRAWN, Subject, format_counts, list_some, to_numpy
from annofree.methods.zip import Clues, Coarse, Zip, ZipEncoding
from annofree.ops.grids import resize_maps
from annofree.render.step_pictures import draw_boxes, draw_edges, draw_heat, draw_pieces
from annofree.render.steps_page import Drawing, Step
from annofree.structures import Detections, IntArray

__all__ = ["explain_zip"]


def explain_zip(method: Zip, subject: Subject) -> Iterator[Step]:
    """Draw Zip's steps up to its ranking."""
    encoding: ZipEncoding = subject.encoding
    clues = method.compute_clues(encoding, subject.asked)
    yield _clue(method, subject, clues)
    if not len(clues.asked):
        return
    if method.settings.instances != "clue":
        yield from _pieces(subject)
        yield _kept(method, subject, clues)
    coarse = method.find_coarse(encoding, subject.asked)
    yield _boxes(subject, coarse)
    yield from _masks(method, subject, coarse)
    ranking = method.instances(encoding, subject.asked)
    words = f"What overlaps too much by the method's own rules goes: {len(coarse.scores)} became {len(ranking)}."
    yield Step("The ranking", words, (subject.draw(ranking, format_counts(ranking)),))


def _clue(method: Zip, subject: Subject, clues: Clues) -> Step:
    order = torch.argsort(clues.presence[clues.asked], descending=True, stable=True)[:MOST_DRAWN].tolist()
    names, ids = subject.asked.names, clues.asked.tolist()
    drawings = [
        Drawing(f"{names[ids[k]]}: presence {clues.presence[ids[k]]:.2f}", draw_heat(subject.image, to_numpy(clues.maps[k])))
        for k in order
    ]
    gate = method.settings.presence
    absent = [name for k, name in enumerate(names) if k not in set(ids)]
    words = (
        "How much each cell of CLIP's map looks like a name, less what every text shares, from dark (least) to light (most)."
    )
    words += f" Below the gate of {gate:g} and passed over: {list_some(absent)}." if absent else ""
    words += f" {len(ids) - len(order)} more names are not drawn." if len(ids) > len(order) else ""
    return Step("Clue of each name", words, tuple(drawings))


def _pieces(subject: Subject) -> Iterator[Step]:
    pieces = subject.encoding.fragments
    labels, clusters = _as_array(pieces.labels), _paint(pieces.labels, pieces.cluster)
    count = len(np.unique(clusters))
    words = f"K-means on CLIP's middle features (conv4_x) finds {count} kinds of cells, and needs no name for it."
    yield Step("Clusters", words, (Drawing(f"{count} clusters", draw_pieces(subject.image, clusters)),))
    words = (
        f"Cells that touch and are of one cluster are a fragment, so fragments end where objects do: {len(pieces)} fragments."
    )
    drawn = Drawing("where fragments meet", draw_edges(subject.image, labels))
    yield Step("Edges", words, (drawn, Drawing(f"{len(pieces)} fragments", draw_pieces(subject.image, labels))))


def _kept(method: Zip, subject: Subject, clues: Clues) -> Step:
    pieces = subject.encoding.fragments
    kept = method.select_fragments(subject.encoding, clues.maps, resize_maps(clues.maps, subject.encoding.grid))
    names = [subject.asked.names[k] for k in clues.asked.tolist()]
    owner = torch.where(kept.any(0), kept.long().argmax(0) + 1, 0)  # of several names the first
    lost = torch.where(kept.any(0), 0, torch.arange(1, len(pieces) + 1, device=kept.device))
    chosen = draw_pieces(subject.image, _paint(pieces.labels, owner), [subject.find_color(name) for name in names])
    dropped = draw_pieces(subject.image, _paint(pieces.labels, lost))
    count = int(kept.any(0).sum())
    told = list_some([f"{n} for {name}" for name, n in zip(names, kept.sum(1).tolist(), strict=True) if n])
    words = f"A fragment stays for a name where its clue is strong and its shape compact: {told or 'none stays'}."
    return Step(
        "Fragments kept and dropped",
        words,
        (Drawing(f"kept: {count}", chosen), Drawing(f"dropped by all: {len(pieces) - count}", dropped)),
    )


def _boxes(subject: Subject, coarse: Coarse) -> Step:
    colors = [subject.find_color(subject.asked.names[k]) for k in coarse.class_ids.tolist()]
    drawn = draw_boxes(subject.image, to_numpy(coarse.boxes), colors)
    words = "What was kept for a name and touches is one coarse instance; its box is the prompt."
    return Step("Coarse boxes", words, (Drawing(f"{len(colors)} boxes", drawn),))


def _masks(method: Zip, subject: Subject, coarse: Coarse) -> Iterator[Step]:
    prompting = method.settings.prompting
    if prompting == "none":
        yield Step("Masks", "SAM is not asked: the cells are the masks.", (_drawn(method, subject, coarse, "cells"),))
        return
    first = copy.copy(method)
    first.settings = replace(method.settings, prompting="one-step")
    yield Step(
        "SAM's first masks",
        "SAM draws what each box means; a score is the mean clue of the coarse instance.",
        (_drawn(first, subject, coarse, "from the box"),),
    )
    if prompting == "two-step":
        words = "The center of the tight box of each first mask prompts SAM again, which draws the final masks."
        yield Step("SAM's refined masks", words, (_drawn(method, subject, coarse, "from the refined box"),))


def _drawn(method: Zip, subject: Subject, coarse: Coarse, how: str) -> Drawing:
    masks, _ = method.draw_instances(subject.encoding, coarse)
    ids, scores = coarse.class_ids.cpu().numpy(), np.clip(coarse.scores.cpu().numpy(), 0, 1)
    found = Detections.from_masks(masks, ids, scores, subject.asked.names)
    return subject.draw(found, f"{how}: {format_counts(found)}")


def _paint(labels: Tensor, values: Tensor) -> IntArray:
    """Paint each fragment 1 .. N of a map (h, w) with its value (N), and 0 with 0."""
    return _as_array(torch.cat([values.new_zeros(1), values])[labels])


def _as_array(labels: Tensor) -> IntArray:
    numbers: IntArray = labels.cpu().numpy()
    return numbers
