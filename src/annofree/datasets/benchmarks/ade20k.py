"""ADE20K's scene parsing challenge: 150 names of things and scenery, as label maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from annofree.datasets.benchmarks.semantic import SemanticDataset, SemanticSample, read_mapped, require_files, require_folder
from annofree.datasets.scene_names import ADE20K_NAMES

__all__ = ["open_ade20k"]

_LAYOUT = (
    "ADEChallengeData2016/images/SPLIT/ID.jpg and ADEChallengeData2016/annotations/SPLIT/ID.png of indices 0 to 150, SPLIT "
    "training or validation; it is at groups.csail.mit.edu/vision/datasets/ADE20K"
)


def open_ade20k(folder: Path, split: str = "validation") -> SemanticDataset:
    """Open a split: ``training`` (20,210 images) or ``validation`` (2,000); index 0 of the maps is void.

    Raises InputError when files are missing.
    """
    root = folder / "ADEChallengeData2016" if (folder / "ADEChallengeData2016").is_dir() else folder
    maps = sorted(require_folder(root / "annotations" / split, _LAYOUT).glob("*.png"))
    require_files(maps, _LAYOUT)
    images = [root / "images" / split / f"{path.stem}.jpg" for path in maps]
    require_files(images, _LAYOUT)
    read = partial(read_mapped, places=tuple(range(1, len(ADE20K_NAMES) + 1)), void=(0,), layout=_LAYOUT)
    samples = tuple(SemanticSample(p.stem, image, partial(read, p)) for p, image in zip(maps, images, strict=True))
    return SemanticDataset(f"ADE20K {split}", ADE20K_NAMES, None, samples, ADE20K_NAMES)
