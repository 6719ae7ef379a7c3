"""Fill the tables of docs/methods/instances.md and docs/methods/ablations.md from what `annofree reproduce` left.

uv run annofree reproduce recipes/emoji/instances.toml --out reproduced/instances
uv run annofree reproduce recipes/emoji/ablations.toml --out reproduced/ablations
uv run python docs/make_instances.py --instances reproduced/instances --ablations reproduced/ablations --expect

`--expect` writes what was measured into the recipes, as what is expected of the next measurement.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import fill, text, write_expected

from annofree.experiments.measure import Recipe, Run
from annofree.experiments.papers import PublishedRecipe
from annofree.hub.presets import find_preset
from annofree.methods.registry import find_method

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
PAGES = {"instances": HERE / "methods" / "instances.md", "ablations": HERE / "methods" / "ablations.md"}
BEGIN = "<!-- numbers: docs/make_instances.py -->"
COLUMNS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR10", "AR100")
AGNOSTIC, EDGES = (
    "class-agnostic ",
    tuple(f"all edge {what} {px} px" for px in (1, 2, 3) for what in ("precision", "recall", "F")),
)
PAPER = "openai-vit-b-16+sam-b+dino-vit-b-8"
"""The models of a row that no paper has."""
IN_PAPERS = {
    "SAM everything, parallel form": "zip/table-coco: SAM, parallel form, SAM-B",
    "SAM everything, official": "zip/table-sam: SAM-B, its own generator",
    "MaskCut": "instances/coco-val2017: MaskCut",
    "TokenCut, one box": "instances/coco-20k: TokenCut, one box",
    "LOST, one box": "instances/coco-20k: LOST, one box",
    "deep spectral methods, one box": "instances/coco-20k: deep spectral methods, one box",
    "SAM + CLIP, one pass": "zip/table-coco: SAM + CLIP, one pass",
    "SAM + CLIP, crop by crop": "zip/table-speed: crop by crop",
    "SAM + CLIP, everything mode": "zip/table-voc: SAM + CLIP, everything mode",
    "MaskCut, SAM by its box, named": "zip/table-coco: cuts of DINOv2, SAM by their boxes, named",
    "Zip": "zip/table-coco: Zip, SAM-B",
    "Zip, paper": "zip/table-coco: Zip, SAM-B",
    "Cascade Mask R-CNN, learned": "zip/table-coco: Zip and self-training",
}
"""Where a paper states a figure of a row: a recipe, and the name of its run."""
EXPECTED = ("AP", "AP50", "AR100", "class-agnostic AP", "class-agnostic AR100", "class-agnostic CorLoc", "edge F 2 px")
"""Figures that recipes expect, of all images."""


def quote(name: str) -> str:
    """What a paper states of a row, and where; a dash where none does."""
    if name not in IN_PAPERS:
        return "–"
    file, _, run_name = IN_PAPERS[name].partition(": ")
    recipe = PublishedRecipe.read(RECIPES / f"{file}.toml")
    (run,) = recipe.select_runs([run_name])
    first = [n for n in ("AP", "AP50", "AR100") if f"all {n}" in run.quoted]
    told = [f"{n} {text(run.quoted[f'all {n}'])}" for n in first[:2]]
    bare = [n for n in ("AP", "AR100", "AR10", "CorLoc") if f"all {AGNOSTIC}{n}" in run.quoted]
    told += [f"agn {n} {text(run.quoted[f'all {AGNOSTIC}{n}'])}" for n in bare[:2]]
    times = run.quoted.get("all times as fast")
    told += [f"{times:g} × as fast"] if times else []
    return f"{', '.join(told)} ([{file}](../../recipes/{file}.toml))"


def describe_models(run: Run) -> tuple[str, str]:
    """The supervision tier of a row, and the licenses of the weights that it takes at a paper's size."""
    if run.method == "detector":
        return "S2", "its own: trained here"
    steps, roles = run.steps, set(find_method(run.method, run.variant).list_roles(run.objectness))
    roles |= {"clip"} if steps.name is not None or run.cluster == "clip" else set()
    refined = steps.redraw != "none" or (steps.name or {}).get("refine", "none") != "none"
    roles |= {"sam"} if refined else set()
    cards = [card for role, card in find_preset(PAPER).find_cards().items() if role in roles]
    tiers = [card.tier for card in cards] + (["S4: the truth names"] if run.cluster else [])
    return max(tiers), ", ".join(sorted({card.licence for card in cards}))


def tell_command(run: Run) -> str:
    """What does the same on a folder of images."""
    steps, variant = run.steps, "" if run.variant == "default" else f" --variant {run.variant}"
    said = f"`segment --method {run.method}{variant}`"
    if steps.name is not None:
        options = "".join(f" --{name} {value}" for name, value in steps.name.items() if (name, value) != ("look", "box"))
        said += f", then `name{options}`"
    said += f", then `evaluate --cluster {run.cluster}`" if run.cluster else ""
    return said + (f" with {', '.join(f'{k} = {v}' for k, v in run.settings.items())}" if run.settings else "")


def lay_out(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def show_instances(recipe: Recipe, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """One table of what rows are, one of their figures with names, one without."""
    rows = [[r.name, quote(r.name), *describe_models(r), tell_command(r)] for r in recipe.runs]
    parts = [lay_out(["row", "a paper's figure", "tier", "license of the weights", "command"], rows)]
    for title, prefix in (("With names:", "all "), ("Without names:", f"all {AGNOSTIC}")):
        columns = [*COLUMNS, *(["CorLoc"] if prefix != "all " else ["seconds an image", "times as fast"])]
        shown = [r.name for r in recipe.runs if f"{prefix}AP" in figures.get(r.name, {})]
        body = [[n, *(text(figures[n].get(f"{prefix}{c}")) for c in columns)] for n in shown]
        parts += [title, lay_out(["", *columns], body)]
    return "\n\n".join(parts)


def show_ablations(recipe: Recipe, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of instances and one of edges."""
    names = [run.name for run in recipe.runs if run.name in figures]
    columns = ["plain AP", "touching AP", "cluttered AP", "all AP", "all AP50", "all AR100", "touching separated"]
    columns += [f"all {AGNOSTIC}AP", f"all {AGNOSTIC}AR100"]
    parts = []
    for shown, key in ((columns, f"all {AGNOSTIC}AP"), (EDGES, EDGES[0])):
        body = [[n, *(text(figures[n].get(c)) for c in shown)] for n in names if key in figures[n]]
        parts.append(lay_out(["", *(c.removeprefix("all edge ") for c in shown)], body))
    return "\n\n".join(parts)


def main() -> None:
    """Fill the pages, and the recipes where that is asked for."""
    parser = argparse.ArgumentParser(description="Fill pages from reproduced recipes.")
    for name in PAGES:
        parser.add_argument(f"--{name}", type=Path, help=f"the folder that annofree reproduce wrote of {name}.toml")
    parser.add_argument("--expect", action="store_true", help="write what was measured into the recipes")
    asked = parser.parse_args()
    for name, page in PAGES.items():
        made: Path | None = getattr(asked, name)
        if made is None:
            continue
        path = RECIPES / "emoji" / f"{name}.toml"
        figures = json.loads((made / "figures.json").read_text(encoding="utf-8"))["figures"]
        show = show_instances if name == "instances" else show_ablations
        recipe = Recipe.read(path)
        fill(page, BEGIN, show(recipe, figures), [run.name for run in recipe.runs])
        if asked.expect:
            write_expected(path, figures, [f"all {name}" for name in EXPECTED])
        print(page)


if __name__ == "__main__":
    main()
