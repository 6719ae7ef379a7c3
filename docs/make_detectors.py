"""Fill the numbers of docs/methods/detectors.md, and draw its images, from what `annofree reproduce` left.

uv run annofree reproduce recipes/emoji/self_training.toml --out reproduced/self_training
uv run python docs/make_detectors.py reproduced/self_training
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from pages import INSTANCES, MADE, fill, stack_overlays, table, text, write_expected

from annofree.formats.coco import CocoFile
from annofree.io.atomic import write_atomic
from annofree.methods.build import MethodSpec
from annofree.training.engine.curves import plot_log

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "emoji" / "self_training.toml"
PAGE = HERE / "methods" / "detectors.md"
SHARES, CURVES, BESIDE = (HERE / "methods" / f"detectors-{name}" for name in ("shares.png", "curves.png", "beside.jpg"))
BEGIN = "<!-- numbers: docs/make_detectors.py -->"
EXPECTED = ("all AP", "all AP50", "all class-agnostic AP")
TEACHER, STUDENT = "Zip, the teacher", "Cascade Mask R-CNN"

Runs = Mapping[str, Mapping[str, float]]
Lines = dict[bool, dict[float, float]]
"""AP all by the share of a person's labels, apart for what was self-trained first (True) and what was not."""


def shares(recipe: Mapping[str, Any], figures: Runs) -> Lines:
    """Gather how good each tuned detector is."""
    lines: Lines = {True: {}, False: {}}
    tables = {f"made/{name}": table for name, table in recipe["make"]["tune"].items()}
    for run in recipe["run"]:
        tuned = tables.get(run.get("parts", {}).get("detector"))
        if tuned is not None and run["name"] in figures:
            lines["initial" in tuned][100 * tuned["fraction"]] = figures[run["name"]]["all AP"]
    return lines


def draw_shares(lines: Lines, figures: Runs, labeled: int, image: Path) -> None:
    """Plot AP over the share of labels, and what there is without any."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=120, layout="constrained")
    for trained, values in lines.items():
        name = "initialised from self-training" if trained else "from CLIP's ResNet alone"
        axes.plot(list(values), list(values.values()), marker="o", label=name)
    for run, style in ((STUDENT, "--"), (TEACHER, ":")):
        label = f"{run}, no label of a person" if run == TEACHER else "self-trained, no label of a person"
        axes.axhline(figures[run]["all AP"], color="grey", linestyle=style, label=label)
    axes.set_xscale("log")
    axes.set_xticks(list(lines[True]), [f"{share:g} %\n{share / 100 * labeled:.0f}" for share in lines[True]], minor=False)
    axes.minorticks_off()
    axes.set(xlabel=f"share and number of {labeled} labelled images", ylabel="mask AP, all splits, emoji", ylim=(0, None))
    axes.grid(color="0.9")
    axes.legend(loc="upper left")
    write_atomic(image, lambda temporary: figure.savefig(temporary, format="png"))


def draw_beside(recipe: Mapping[str, Any], made: Path, ids: Sequence[int], picture: Path) -> None:
    """Draw what the teacher finds in validation scenes over what the student finds, at half of an overlay's size."""
    truth = CocoFile.read(RECIPE.parent / recipe["truth"])
    names = [row["name"] for row in truth.categories]
    student = str(made / "tiny-detector")
    methods = [(MethodSpec(name, models="tiny").build(), least) for name, least in (("zip", 0.4), (student, 0.2))]
    files = {row["id"]: RECIPE.parent / recipe["images"] / row["file_name"] for row in truth.images}
    whole = stack_overlays([files[id_] for id_ in ids], names, methods)
    write_atomic(picture, lambda temporary: whole.save(temporary, format="JPEG", quality=88))


def numbers(figures: Runs, lines: Lines) -> str:
    """Everything that was measured, as Markdown."""
    runs = {name: values for name, values in figures.items() if name != MADE}
    teacher, student = figures[TEACHER], figures[STUDENT]
    ratios = [f"{name} × {student[name] / teacher[name]:.2f}" for name in ("all AP", "all class-agnostic AP")]
    rows = ["| share of labels | from self-training | from scratch | gap |", "|---|---|---|---|"]
    for share, value in lines[True].items():
        other = lines[False].get(share)
        gap = None if other is None else value - other
        rows.append(f"| {share:g} % | {text(value)} | {text(other)} | {text(gap)} |")
    made = "; ".join(f"{name} {value:g}" for name, value in figures[MADE].items())
    return "\n\n".join(
        [
            f"Labels that Zip gave (percent, mask IoU 0.5, by name): {made}.",
            f"The student over its teacher: {'; '.join(ratios)}.",
            table(runs, INSTANCES),
            "AP of all splits by the share of a person's labels:",
            "\n".join(rows),
        ]
    )


def main() -> None:
    """Write the page and its images."""
    parser = argparse.ArgumentParser(description="Fill docs/methods/detectors.md from a reproduced recipe.")
    parser.add_argument("made", type=Path, help="the folder that annofree reproduce wrote")
    parser.add_argument("--pictures", nargs="*", type=int, default=[3, 55, 72, 120], help="validation scenes that are shown")
    asked = parser.parse_args()
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    figures = json.loads((asked.made / "figures.json").read_text(encoding="utf-8"))["figures"]
    lines = shares(recipe, figures)
    draw_shares(lines, figures, 3 * recipe["make"]["labelled"], SHARES)
    plot_log(asked.made / "tiny-detector" / "log.jsonl", CURVES)
    draw_beside(recipe, asked.made, asked.pictures, BESIDE)
    fill(PAGE, BEGIN, numbers(figures, lines))
    write_expected(RECIPE, figures, EXPECTED)
    print(f"{PAGE}, {SHARES.name}, {CURVES.name}, {BESIDE.name}, {RECIPE.name}")


if __name__ == "__main__":
    main()
