"""What people submit in Label Studio as corrections of a workspace: found on the page, and in every export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from annofree.apps.web.workspace import Workspace
from annofree.formats.annotations import Annotation
from annofree.ops.rle import to_json_rle
from annofree.runs.corrections.acts import Instance, combine
from annofree.runs.corrections.answers import Answer
from annofree.runs.corrections.journal import OutdatedError

__all__ = ["Desk"]

_TRIES = 5


class Desk:
    """Keeps corrections in a workspace, under the images that it has, or that are taken in."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def find_image(self, address: str, file: Path | None, read: Callable[[], bytes]) -> str:
        """The id of a task's image: that of its file in the workspace; one from elsewhere is taken in, once."""
        root = self.workspace.root
        if file is not None and root is not None and file.is_relative_to(root.resolve()):
            own = file.relative_to(root.resolve()).as_posix()
            if self.workspace.images.find(own) is not None:
                return own
        data = read()
        suffix = PurePosixPath(file.name if file is not None else urlsplit(address).path).suffix
        name = f"label-studio-{hashlib.sha256(data).hexdigest()[:16]}{suffix.lower()}"
        known = f"uploads/{name}"
        return known if self.workspace.images.find(known) is not None else self.workspace.upload(name, data)

    def keep_answer(self, image: str, size: tuple[int, int], things: Sequence[Annotation], who: str) -> None:
        """Keep what a person says there is in an image of ``size`` (H, W), all of it; the same again changes nothing.

        What the machine says and the person left as it was is accepted, the rest is deleted.  Raises InputError for names and
        masks that cannot be.
        """
        workspace = self.workspace
        for tries in range(_TRIES):
            one = workspace.find(image)
            history = workspace.journal.find(image)
            answer, revision = workspace.find_answer(one) or Answer(size, ()), history.revision
            shown = combine(answer.instances, history.fold())
            acts = _list_acts(shown, things)
            if not acts and history.fold().reviewed:
                return
            try:
                workspace.journal.act(image, [*acts, {"act": "reviewed"}], shown, size, revision, who)
            except OutdatedError:
                if tries == _TRIES - 1:
                    raise
            else:
                return


def _list_acts(shown: Sequence[Instance], things: Sequence[Annotation]) -> list[dict[str, Any]]:
    """What makes of the answer as it is ``shown`` one that has just these ``things``."""
    left = {(thing.name, thing.rle["counts"]): thing.rle for thing in things if thing.rle is not None}
    acts: list[dict[str, Any]] = []
    for one in shown:
        if left.pop((one.name, one.rle["counts"]), None) is not None:
            acts += [] if one.state == "accepted" else [{"act": "accept", "instance": one.id}]
        elif one.labels:
            acts.append({"act": "delete", "instance": one.id})
    return acts + [{"act": "add", "class": name, "mask": to_json_rle(rle)} for (name, _), rle in left.items()]
