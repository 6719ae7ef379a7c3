"""Copy-paste scenes that are drawn once, by several processes, and learned from many times on the device of the training.

A drawn scene is kept as pixels and owners: whose pixel it is, 0 the background, n the n-th instance, 255 padding.  Each time it
is seen it is mirrored and turned by quarters, as its number in the run says.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from annofree.io.atomic import make_folder, write_json
from annofree.io.files.lock import hold_lock
from annofree.training.augment.copy_paste import CopyPaste, PastedScene
from annofree.training.engine.data import pass_on

__all__ = ["DrawnScenes", "ScenePool", "TenthTeller", "keep_pool"]

_PADDING = 255
_PART = 64  # scenes that a process draws at once
_TURNS = 8  # four quarters, mirrored or not


class DrawnScenes(NamedTuple):
    """P scenes of side S: ``pixels`` (P, S, S, 3) and ``owners`` (P, S, S) uint8, and ``labels`` (P, 256) int16 by owner."""

    pixels: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int16]


class ScenePool:
    """Gives batches of drawn scenes, on a device.

    A batch is a function of the numbers of its scenes in the run: the n-th is the scene n modulo P, turned by what a generator
    seeded by ``seed`` and n says.
    """

    def __init__(self, scenes: DrawnScenes, seed: int, device: str = "cpu") -> None:
        self.seed, self.device = seed, device
        self.pixels, self.owners, self.labels = (torch.from_numpy(np.array(part)).to(device) for part in scenes)

    def __len__(self) -> int:
        return len(self.pixels)

    def gather(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Pixels (B, 3, S, S) uint8, labels (B, S, S) int16, and the instances (N, S, S) bool of each scene."""
        places = torch.tensor([n % len(self) for n in numbers], device=self.device)
        turns = [int(np.random.default_rng((self.seed, n)).integers(_TURNS)) for n in numbers]
        pixels = _turn(self.pixels[places].permute(0, 3, 1, 2), turns)
        owners = _turn(self.owners[places], turns)
        labels = self.labels[places].gather(1, owners.flatten(1).long()).view_as(owners)
        return pixels, labels, [_split(one) for one in owners]


class TenthTeller:
    """Says how many scenes of a pool are drawn, at each tenth of them, and how long the rest takes.

    >>> tell = TenthTeller(print)
    >>> tell(0, 40), tell(3, 40)
    drawing 40 scenes, once
    (None, None)
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self._tenth, self._began = say, 0, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` scenes are drawn."""
        if done == 0:
            self._began = time.monotonic()
            self.say(f"drawing {total} scenes, once")
        elif (tenth := 10 * done // total) > self._tenth:
            self._tenth = tenth
            left = (time.monotonic() - self._began) * (total - done) / done
            self.say(f"{done} of {total} scenes are drawn" + (f", {left:.0f} s left" if done < total else ""))


def keep_pool(
    folder: Path,
    scenes: CopyPaste,
    seed: int,
    count: int,
    about: Mapping[str, Any],
    workers: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DrawnScenes:
    """Draw ``count`` scenes into a folder of ``folder``, or open those that are there, for all trainings with them.

    The n-th follows from ``seed`` and n; ``about`` tells the archive.  One process draws, by so many ``workers``, others wait.
    Raises ImageError for an image of the archive that cannot be read.
    """
    key = {"scenes": asdict(scenes.settings), "seed": seed, "count": count, **about}
    told = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:12]
    place = folder / f"scenes-{told}"
    make_folder(place)
    with hold_lock(place / "lock", f"expected to wait for the scenes in {place}, but they are locked", wait=True):
        if not (place / "drawn.json").exists():
            _draw_pool(place, scenes, seed, count, workers, on_progress)
            write_json(place / "drawn.json", key)
    return _open_pool(place, "r")


def _draw_pool(
    place: Path, scenes: CopyPaste, seed: int, count: int, workers: int, on_progress: Callable[[int, int], None]
) -> None:
    side = scenes.settings.crop
    shapes = (count, side, side, 3), (count, side, side), (count, 256)
    for name, kind, shape in zip(DrawnScenes._fields, (np.uint8, np.uint8, np.int16), shapes, strict=True):
        np.lib.format.open_memmap(place / f"{name}.npy", "w+", kind, shape)
    parts = _Parts(place, scenes, seed, [range(first, min(first + _PART, count)) for first in range(0, count, _PART)])
    on_progress(0, count)
    for stop in DataLoader(parts, batch_size=None, collate_fn=pass_on, num_workers=workers, generator=torch.Generator()):
        on_progress(stop, count)


def _open_pool(place: Path, mode: Literal["r", "r+"]) -> DrawnScenes:
    return DrawnScenes(*(np.load(place / f"{name}.npy", mode) for name in DrawnScenes._fields))


class _Parts(Dataset[int]):
    """Parts of a pool; whoever asks for one draws it into the files."""

    def __init__(self, place: Path, scenes: CopyPaste, seed: int, parts: Sequence[range]) -> None:
        self.place, self.scenes, self.seed, self.parts = place, scenes, seed, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> int:
        drawn, part = _open_pool(self.place, "r+"), self.parts[number]
        for n in part:
            scene = self.scenes.make_scene(np.random.default_rng((self.seed, n)))
            drawn.pixels[n], drawn.owners[n], drawn.labels[n] = _flatten(scene, self.scenes.settings.ignored)
        return part.stop


def _flatten(scene: PastedScene, ignored: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Pixels, owners, and the label of each owner of a scene."""
    owners = np.zeros(scene.semantic.shape, np.uint8)
    for number, instance in enumerate(scene.instances, 1):
        owners[instance] = number
    owners[scene.semantic == ignored] = _PADDING
    labels = np.zeros(256, np.int16)
    labels[1 : 1 + len(scene.class_ids)], labels[_PADDING] = 1 + scene.class_ids, ignored
    return scene.image, owners, labels


def _turn(maps: Tensor, turns: Sequence[int]) -> Tensor:
    """Maps (B, ..., S, S), each turned by so many quarters, the latter half mirrored, too."""
    turned = (m.flip(-1) if t >= _TURNS // 2 else m for m, t in zip(maps, turns, strict=True))
    return torch.stack([m.rot90(t % 4, (-2, -1)) for m, t in zip(turned, turns, strict=True)])


def _split(owners: Tensor) -> Tensor:
    """The instances (N, S, S) bool of owners (S, S)."""
    numbers = torch.unique(owners)
    found: Tensor = owners == numbers[(numbers > 0) & (numbers < _PADDING)][:, None, None]
    return found
