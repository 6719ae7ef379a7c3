"""The bank of an archive: of each image its pseudo-mask stands for the names that retrieved it, as far as text agrees.

    archive -> the best images of each name asked for -> CLIP, as it sees candidates -> kept beside the archive
                                  names asked for and distractors compete -> share x the mask's quality -> bank

Where two names retrieved one image, the likelier is told.  No label takes part.  This project's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.detections.bank import BankSettings, Named
from annofree.detections.collect_bank import collect_bank
from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.methods.answering import Answering
from annofree.ops.rle import compute_rle_boxes, unpack_counts
from annofree.retrieval.archive import PseudoMask
from annofree.retrieval.looks import Look, Looks, look_at_masks
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.structures import Detections, IntArray, Vocabulary

__all__ = ["collect_archive_bank"]

_TOLD = 5  # images that a note names


def collect_archive_bank(
    method: Answering, archive: MaskedArchive, vocabulary: Vocabulary, settings: BankSettings, callbacks: Callbacks
) -> Answering:
    """Return a method with a bank of an archive, of whose names those are taken that are asked for.

    Raises InputError where none is, for a method whose candidates CLIP does not look at one by one, and where nothing is told
    surely enough.
    """
    method.require_seen()
    names = archive.match_names(vocabulary.synonyms)
    if not names:
        raise InputError(
            f"expected some of the names asked for in the archive {archive.folder}, but it has {_list(archive.archive.names)}; "
            "retrieve and mask images of these names, or leave the bank out"
        )
    stands = archive.list_references(names, settings.per_name)
    looks = look_at_masks(archive, stands, method.look, _condense_maker(method), callbacks)
    for note in _describe(archive, names, looks):
        callbacks.on_note(note)
    bank = collect_bank(_name(method, archive, stands, looks, vocabulary), settings)
    return method.with_bank(replace(bank, about={"archive": _tell(archive, looks)}))


def _condense_maker(method: Answering) -> str:
    """All that tells what a method sees from what others see: its class-independent settings and its models."""
    models = method.provenance.get("models", [])
    return f"{method.encoding_key!r}, {json.dumps(models, sort_keys=True)}"


def _name(
    method: Answering, archive: MaskedArchive, stands: dict[str, tuple[str, ...]], looks: Looks, vocabulary: Vocabulary
) -> Iterator[Named]:
    """Each image's mask under the names that it stands for, scored by their shares times the quality of the mask."""
    if not looks.seen:
        return
    rows, shares = method.compute_shares(torch.stack([look.feature for look in looks.seen.values()]), vocabulary)
    of_image, place = dict(zip(looks.seen, shares, strict=True)), {name: k for k, name in enumerate(vocabulary.names)}
    for id_, names in stands.items():  # in the archive's order, whenever each was looked at
        if id_ in looks.seen:
            ids = np.array([place[name] for name in names], np.int64)
            yield _name_mask(archive.masks[id_], looks.seen[id_], rows, ids, of_image[id_])


def _name_mask(mask: PseudoMask, look: Look, rows: tuple[str, ...], ids: IntArray, shares: Tensor) -> Named:
    """A mask under some of the ``rows`` that compete, by their ``shares`` (R)."""
    size, count = (mask.rle["size"][0], mask.rle["size"][1]), len(ids)
    rles = unpack_counts([mask.rle["counts"]] * count, size)
    scores = (shares[ids].numpy() * mask.quality).astype(np.float32).clip(0, 1)
    candidates = Detections(size, rows, ids, scores, compute_rle_boxes(rles), rles)
    return Named(candidates, look.feature.expand(count, -1), shares.expand(count, -1), look.image)


def _describe(archive: MaskedArchive, names: dict[str, str], looks: Looks) -> Iterator[str]:
    """What of an archive is passed over, a line each."""
    folder, others = archive.folder, [name for name in archive.archive.names if name not in names]
    if others:
        yield f"names of {folder} that are not asked for and were passed over: {len(others)}; {_list(others)}"
    if looks.bare:
        yield f"images of {folder} without a mask that were passed over: {len(looks.bare)}; {_list(looks.bare)}"
    if looks.failed:
        yield f"images of {folder} that could not be looked at: {len(looks.failed)}; {_list(list(looks.failed.values()))}"
    if looks.unkept:
        yield f"what was seen of {folder} cannot be kept there, and the next call looks again: {looks.unkept}"


def _tell(archive: MaskedArchive, looks: Looks) -> dict[str, Any]:
    """What run.json says of an archive: its files, its models with their tiers, and what of it served."""
    counts = {"images": len(looks.seen), "without mask": len(looks.bare), "failed": len(looks.failed)}
    return {"folder": str(archive.folder), "checksums": archive.checksums, "models": archive.list_models(), **counts}


def _list(texts: tuple[str, ...] | list[str]) -> str:
    return ", ".join(texts[:_TOLD]) + (f" and {len(texts) - _TOLD} more" if len(texts) > _TOLD else "")
