"""Exams of self-supervised features and of objectness on scenes that nobody has seen; the truth is read here only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import SPLITS, Scene, World
from annofree.features.dino import Dino
from annofree.features.saliency import FoundBackground, FoundObjectness, TokenCutMap
from annofree.hub.cards import Card, hash_file
from annofree.protocols import Objectness, SelfSupervised
from annofree.structures import Image

__all__ = [
    "Overlap",
    "evaluate_dino",
    "evaluate_found",
    "label_patches",
    "measure_overlap",
    "measure_purity",
    "write_untrained",
]

_SEED = 9_100_000
_A_SCENE = 24  # object patches that are asked about, and as many of the background


def write_untrained(like: Path, out: Path, seed: int = 0) -> Path:
    """Write a model of the same configuration as the one in ``like``, with random weights, and return its folder."""
    config = json.loads((like / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    model = timm.create_model(config["architecture"], pretrained=False, **config["model_args"] | {"num_classes": 0})
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_bytes((like / "config.json").read_bytes())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors", metadata={"format": "pt"})
    files = {name: hash_file(out / name) for name in ("config.json", "model.safetensors")}
    replace(Card.read(like), name="untrained-dino", trained_on="nothing", files=files, figures={}).write(out)
    return out


def evaluate_dino(folder: Path, font: Path | None = None, count: int = 150) -> dict[str, float]:
    """Examine a DINO on ``count`` unseen scenes of 256 px: how often the nearest patch of another scene shows the same class.

    The figure is the share of object patches, by the cosine of keys; and the same for random weights in the same
    configuration.  A patch of the background counts as wrong.  Raises MissingError without the emoji font.
    """
    scenes = list(World(font).draw_scenes(count, _SEED, "mixed"))
    with tempfile.TemporaryDirectory() as scratch:
        untrained = Dino(write_untrained(folder, Path(scratch)))
        models: dict[str, SelfSupervised] = {"": Dino(folder), ", random weights": untrained}
        return {f"nearest patch of the same class{name}": measure_purity(model, scenes) for name, model in models.items()}


def measure_purity(dino: SelfSupervised, scenes: Iterable[Scene]) -> float:
    """Share of object patches whose nearest patch in any other scene is of the same class.

    As many patches of the background as of objects are there to be mistaken for; patches of mixed content are left out.
    NaN without an object patch.
    """
    rng = np.random.default_rng(_SEED)
    keys, names, origin = [], [], []
    for index, scene in enumerate(scenes):
        [found] = dino.extract_keys([Image(scene.image)])
        labels = label_patches(scene, (found.values.shape[1], found.values.shape[2]))
        chosen = np.concatenate([_some(rng, labels > 0), _some(rng, labels == 0)])
        keys.append(F.normalize(found.values.flatten(1).T[chosen].cpu(), dim=1))
        names.append(labels[chosen])
        origin.append(np.full(len(chosen), index))
    return _agreement(torch.cat(keys), *(torch.from_numpy(np.concatenate(a)) for a in (names, origin)))


def label_patches(scene: Scene, grid: tuple[int, int], pure: float = 0.75) -> npt.NDArray[np.int64]:
    """COCO category id of each patch (h * w), 0 for background, -1 where less than ``pure`` of its pixels agree."""
    ids = np.array([0, *(o.category_id for o in scene.objects)])
    pixels = torch.from_numpy(ids[scene.layout])
    present = torch.from_numpy(np.unique(ids))
    shares = F.adaptive_avg_pool2d((pixels == present[:, None, None]).float(), grid).flatten(1)
    share, best = shares.max(0)
    labels: npt.NDArray[np.int64] = torch.where(share >= pure, present[best], -1).numpy()
    return labels


def _some(rng: np.random.Generator, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return rng.permutation(np.flatnonzero(wanted))[:_A_SCENE]


def _agreement(keys: Tensor, names: Tensor, origin: Tensor) -> float:
    """Share of rows with a name whose nearest row of another origin has the same name."""
    agree = []
    for rows in torch.split(torch.arange(len(keys)), 1024):
        cosines = (keys[rows] @ keys.T).masked_fill(origin[rows, None] == origin, -torch.inf)
        agree.append((names[cosines.argmax(1)] == names[rows])[names[rows] > 0])
    return float(torch.cat(agree).float().mean())


@dataclass
class Overlap:
    """Intersection and union of found and true things, image by image, in pixels."""

    both: list[int]
    either: list[int]

    @property
    def per_image(self) -> float:
        """Mean IoU of the images that have things or where any were found."""
        return float(np.mean([b / e for b, e in zip(self.both, self.either, strict=True) if e]))

    @property
    def pooled(self) -> float:
        """IoU over the pixels of all images together."""
        return sum(self.both) / sum(self.either)


def measure_overlap(found: Sequence[npt.NDArray[np.bool_]], truth: Sequence[npt.NDArray[np.bool_]]) -> Overlap:
    """Compare masks (H, W), one an image."""
    pairs = list(zip(found, truth, strict=True))
    return Overlap([int((f & t).sum()) for f, t in pairs], [int((f | t).sum()) for f, t in pairs])


def evaluate_found(
    folder: Path, font: Path | None = None, count: int = 60, *, dino: Path, seed: int = _SEED
) -> dict[str, float]:
    """Examine FOUND's head, trained on the DINO of the folder ``dino``, on ``count`` unseen scenes of each split.

    IoU of objectness > 0.5 with the union of all objects, per image and pooled: of the head, of its untrained seed
    ``found-bkg``, of ``tokencut`` on the same keys, and of ``everything``, which calls each pixel an object.  Raises
    MissingError without the emoji font.
    """
    model = Dino(dino)
    rules: dict[str, Objectness] = {
        "found": FoundObjectness(model, folder / "model.safetensors"),
        "found-bkg": FoundBackground(model),
        "tokencut": TokenCutMap(model),
    }
    world = World(font, held_out=0.3)
    figures: dict[str, float] = {}
    for split in SPLITS:
        scenes = list(world.draw_scenes(count, seed, split))
        truth = [s.layout > 0 for s in scenes]
        masks = {
            name: [rule.predict_maps([Image(s.image)])[0].cpu().numpy() > 0.5 for s in scenes] for name, rule in rules.items()
        }
        masks["everything"] = [np.ones_like(t) for t in truth]
        for name, found in masks.items():
            score = measure_overlap(found, truth)
            figures |= {f"{split} IoU, {name}": score.per_image, f"{split} IoU, {name}, pooled": score.pooled}
    return figures
