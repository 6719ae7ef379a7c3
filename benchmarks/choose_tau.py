"""Choose the cosine from which MaskCut joins two patches, on images that are neither those of training nor of validation.

    uv run python benchmarks/choose_tau.py --json tau.json
    uv run python benchmarks/choose_tau.py --models modern --truth tuning.json --images tuning

MaskCut's 0.15 belongs to DINO's keys; those of another network, such as DINOv2, lie at other cosines, and Zip's paper does not
say which it took.  Without a truth, emoji scenes are drawn as `choose_sureness.py` draws them.  Every choice is scored without
names by COCO's rules: AP, AR100, masks an image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from choose_sureness import draw_scenes, measure_choice  # type: ignore[import-not-found]  # beside this file

from annofree.formats.coco import CocoFile
from annofree.fragments.maskcut import MaskCutSettings
from annofree.methods.class_agnostic.maskcut import MaskCut, MaskCutMethodSettings
from annofree.methods.components import Models
from annofree.testing.timing import print_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny", help="a preset whose dino is asked")
    parser.add_argument("--tau", type=float, nargs="+", default=(0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5))
    parser.add_argument("--truth", type=Path, help="a COCO file of tuning images; else emoji scenes are drawn")
    parser.add_argument("--images", type=Path, help="the folder of its images")
    parser.add_argument("--scenes", type=int, default=8, help="of a split, where they are drawn")
    parser.add_argument("--seed", type=int, default=515)
    parser.add_argument("--folder", type=Path, default=Path("out/tuning-sureness"), help="where scenes are drawn, or were")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    truth = CocoFile.read(asked.truth) if asked.truth else draw_scenes(asked.folder, asked.scenes, asked.seed)
    images = asked.images if asked.truth else asked.folder / "images"
    dino, rows = Models(asked.models, "cpu", objectness="none").dino, []
    for tau in asked.tau:
        method = MaskCut(dino, MaskCutMethodSettings(cuts=MaskCutSettings(tau=tau), crf=None))
        rows.append({"tau": tau, **measure_choice(truth, images, method)})
        print(rows[-1], flush=True)
    print_json(rows, asked.json)


if __name__ == "__main__":
    main()
