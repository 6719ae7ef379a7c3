"""A page on a folder, with a machine that answers at once and always the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from starlette.testclient import TestClient

from annofree.apps.web.app import build_app
from annofree.apps.web.security import Guard, Rules
from annofree.apps.web.service import Asked, Drawn, Ranked, Service, Source, to_source
from annofree.apps.web.uploads import Limits
from annofree.apps.web.workspace import Opening, Workspace
from annofree.pipelines.plan import Plan
from annofree.structures import Detections, Image, Vocabulary

PLAN = Plan(("instance",), None, "default", "tiny", "found", "cpu", policy="answer")
OURS = {"X-Annofree": "1"}


class StandIn(Asked):
    """Answers each image with a left half of the first name, and a weaker right half that the policy drops."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(PLAN, 1 << 20, None)
        self.seconds, self.asked, self.opened = seconds, 0, 0

    def rank(self, image: Image | Source, classes: Any) -> Ranked:
        time.sleep(self.seconds)
        self.asked += 1
        names, size = Vocabulary.of(classes).names, self._open(image).size
        masks = np.zeros((2, *size), bool)
        masks[0, :, : size[1] // 2] = True
        masks[1, :, size[1] // 2 :] = True
        found = Detections.from_masks(masks, [0, 0], [0.9, 0.4], names)
        return Ranked(found, ("", "less likely than 0.5"))

    def segment(self, image: Image | Source, points: Sequence[Sequence[float]], box: Any = None) -> Drawn:
        mask = np.zeros(self._open(image).size, bool)
        mask[:2, :3] = True
        return Drawn(mask, (0.0, 0.0, 3.0, 2.0), 0.75)

    def load(self, vocabulary: Vocabulary) -> None:
        pass

    def _open(self, image: Image | Source) -> Image:
        self.opened += 1
        return to_source(image).open()


def make_photos(folder: Path, *names: str, size: tuple[int, int] = (8, 12)) -> Path:
    for k, name in enumerate(names or ("a.jpg", "b c.png", "deep/d.jpg")):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", size[::-1], (20 * k, 90, 200)).save(place)
    return folder


def make_workspace(
    out: Path, images: Path | None, names: str = "dog, cat", now: Asked | None = None, limits: Limits | None = None, **more: Any
) -> Workspace:
    service = Service(PLAN, **more)
    service.now = now or StandIn()
    vocabulary = Vocabulary.of(names) if names else None
    opening = Opening(out, "test", images=images, vocabulary=vocabulary, who="ann", limits=limits or Limits())
    return Workspace(opening, service)


def make_app(workspace: Workspace, **rules: Any) -> Guard:
    return build_app(workspace, Rules(limits=workspace.opening.limits, **rules))


def open_client(workspace: Workspace, headers: dict[str, str] | None = None, **rules: Any) -> TestClient:
    client = TestClient(make_app(workspace, **rules), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    client.headers.update(OURS if headers is None else headers)
    return client


def plain_mask(size: Sequence[int], rows: slice, columns: slice) -> dict[str, Any]:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8)))
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(size), "counts": counts if counts[-1] else counts[:-1]}
