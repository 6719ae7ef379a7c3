"""Do the label-free risks of ``annofree review`` rank images as their true errors do?

    uv run python benchmarks/review.py --views flip --others sam_clip --cache /tmp/review --plot risk-coverage.png

The emoji validation scenes, all 65 names asked in each, Zip on the tiny models.  The error of an image is 1 - F1 of its
instances, class-aware, at mask IoU 0.5.  For each risk: the area under the risk-coverage curve (AURC, less is better) with a
bootstrap interval, its difference to that of the plain score on the same draws, and what part of all error is in the riskiest
fifth.  A random order has the mean error as its expected area; the oracle orders by the errors.  It is done once with all
instances and once with those that score 0.5 or more, as they would be used.  With ``--cache`` answers are kept, scene by scene.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.evaluation.metrics.matching import compute_error
from annofree.evaluation.metrics.risk_coverage import bootstrap, compute_aurc, compute_caught_error, compute_risk_coverage
from annofree.evaluation.review.consistency_views import VIEWS
from annofree.evaluation.review.risk import Scale, compute_joint_risk, compute_stored_parts, measure_disagreement
from annofree.formats.annotations import AnnotatedImage, Annotation, build_coco_file, list_images
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.methods.build import MethodSpec
from annofree.structures import Vocabulary

WORLD = Path(__file__).parents[1] / "examples" / "validation"
Floats = npt.NDArray[np.float64]
Answers = Mapping[int, Sequence[Annotation]]


def answers(name: str, truth: CocoFile, ids: Sequence[int], images: Path, models: str, cache: Path | None) -> Answers:
    """The instances of each scene: of the method ``plain``, of a view of the scene, or of another method, by name."""
    place = cache / f"{name}.jsonl" if cache else None
    rows = _cached(place)
    ask: Callable[[Path], Sequence[Annotation]] | None = None
    for image in (row for row in truth.images if row["id"] in ids and row["id"] not in rows):
        ask = ask or _asker(name, truth, models)
        picture = AnnotatedImage(image["file_name"], (image["height"], image["width"]), tuple(ask(images / image["file_name"])))
        rows[image["id"]] = build_coco_file([row["name"] for row in truth.categories], [picture]).annotations
        if place:
            with place.open("a") as file:
                file.write(json.dumps({"id": image["id"], "rows": rows[image["id"]]}) + "\n")
    return things_of(truth, {id_: rows[id_] for id_ in ids})


def _cached(place: Path | None) -> dict[int, list[dict[str, Any]]]:
    if place is None or not place.exists():
        return {}
    lines = [line for line in place.read_text().splitlines(keepends=True) if line.endswith("\n")]  # none that is torn
    return {row["id"]: row["rows"] for row in map(json.loads, lines)}


def _asker(name: str, truth: CocoFile, models: str) -> Callable[[Path], Sequence[Annotation]]:
    method = MethodSpec("zip" if name == "plain" or name in VIEWS else name, models=models, device="cpu").build()
    vocabulary, view = Vocabulary.of([row["name"] for row in truth.categories]), VIEWS.get(name)

    def ask(path: Path) -> Sequence[Annotation]:
        image = read_image(path)
        found = method.instances(view.look(image) if view else image, vocabulary)
        if view:
            return view.map_back(found, image.size)
        rows = zip(found.labels.tolist(), found.masks, found.scores.tolist(), strict=True)
        return [Annotation.of_mask(*row) for row in rows]

    return ask


def things_of(truth: CocoFile, rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> Answers:
    """Rows of each image, whose categories are numbered as the truth's, as things."""
    images = [image for image in truth.images if image["id"] in rows]
    flat = [{**row, "image_id": id_} for id_, own in rows.items() for row in own]
    pictures = list_images(CocoFile(images, truth.categories, flat))
    return {image["id"]: picture.things for image, picture in zip(images, pictures, strict=True)}


def risks_of(plain: Answers, views: Mapping[str, Answers], others: Mapping[str, Answers], sizes: Any) -> dict[str, Floats]:
    """Every risk of every image, by name."""
    scores = [thing.score or 0.0 for things in plain.values() for thing in things]
    scale = Scale(min(scores), max(scores)) if scores else Scale()
    parts = {id_: {n: p.value for n, p in compute_stored_parts(things, scale).items()} for id_, things in plain.items()}
    for id_, things in plain.items():
        for name, found in views.items():
            part = VIEWS[name].compare(things, found[id_], sizes[id_])
            parts[id_] |= {name: part.value, f"{name}, joint": compute_joint_risk(things, [part]).value}
        for name, found in others.items():
            part = measure_disagreement(things, found[id_], "there")
            parts[id_] |= {name: part.value, f"{name}, joint": compute_joint_risk(things, [part]).value}
    return {name: np.array([own[name] for own in parts.values()]) for name in next(iter(parts.values()))}


def strong(found: Answers, min_score: float) -> Answers:
    """What scores enough."""
    return {id_: [t for t in things if (t.score or 0.0) >= min_score] for id_, things in found.items()}


def measured(errors: Floats, risks: Mapping[str, Floats], samples: int) -> dict[str, Any]:
    """The figures of each risk, the best first, with those of a random order and of the oracle."""
    ordered = sorted(risks, key=lambda name: compute_aurc(errors, risks[name]))
    figures = {
        name: {
            "aurc": compute_aurc(errors, risks[name]),
            "interval": bootstrap(errors, risks[name], samples=samples),
            "less score": bootstrap(errors, risks[name], risks["score"], samples=samples),
            "caught in a fifth": compute_caught_error(errors, risks[name], 0.2),
        }
        for name in ordered
    }
    return {"pictures": len(errors), "random": float(errors.mean()), "oracle": compute_aurc(errors, errors), "risks": figures}


def table(figures: Mapping[str, Any], min_score: float) -> Iterator[str]:
    yield f"instances that score {min_score} or more; {figures['pictures']} images, mean error {figures['random']:.3f}"
    yield f"{'':20} AURC   95 % interval   less that of score   caught in a fifth"
    yield f"{'oracle':20} {figures['oracle']:.3f}"
    for name, row in figures["risks"].items():
        (low, high), (less, more) = row["interval"], row["less score"]
        line = f"{name:20} {row['aurc']:.3f}  {low:.3f} to {high:.3f}  {less:+.3f} to {more:+.3f}"
        yield f"{line}    {100 * row['caught in a fifth']:.1f} %"
    yield f"{'random order':20} {figures['random']:.3f}"


def plot(path: Path, curves: Mapping[float, tuple[Floats, Mapping[str, Floats]]]) -> None:
    """Draw the curves, a panel for each least score."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(6.4 * len(curves), 4.8), squeeze=False)
    for panel, (least, (errors, risks)) in zip(panels[0], curves.items(), strict=True):
        kept = np.arange(1, len(errors) + 1) / len(errors)
        panel.axhline(errors.mean(), color="grey", linestyle=":", label=f"random {errors.mean():.3f}")
        panel.plot(
            kept,
            compute_risk_coverage(errors, errors),
            color="black",
            linestyle="--",
            label=f"oracle {compute_aurc(errors, errors):.3f}",
        )
        for number, (name, values) in enumerate(risks.items()):
            width, line = 2.5 if name == "score" else 1.4, "-" if number < 10 else "-."
            label = f"{name} {compute_aurc(errors, values):.3f}"
            panel.plot(
                kept,
                compute_risk_coverage(errors, values),
                linewidth=width,
                color=f"C{number % 10}",
                linestyle=line,
                label=label,
            )
        panel.set(title=f"instances that score {least} or more", xlabel="part of the images kept, the least risky first")
        panel.set(ylabel="their mean error, 1 - F1", ylim=(0, 1.02), xlim=(0, 1))
        panel.legend(fontsize=8, title="risk and its AURC", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--truth", type=Path, default=WORLD / "truth.json")
    parser.add_argument("--images", type=Path, default=WORLD / "images")
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--views", nargs="*", default=["flip"], choices=list(VIEWS), help="changed views of each scene")
    parser.add_argument("--others", nargs="*", default=[], help="other methods, such as sam_clip")
    parser.add_argument("--min-scores", nargs="*", type=float, default=[0.0, 0.5])
    parser.add_argument("--limit", type=int, help="take every n-th scene only, so that about this many are left")
    parser.add_argument("--samples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--cache", type=Path, help="a folder to keep answers in")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args(arguments)
    if asked.cache:
        asked.cache.mkdir(parents=True, exist_ok=True)
    truth = CocoFile.read(asked.truth)
    every = max(1, len(truth.images) // asked.limit) if asked.limit else 1
    ids = [row["id"] for row in truth.images[::every]]
    sizes = {row["id"]: (row["height"], row["width"]) for row in truth.images}
    own: dict[int, list[dict[str, Any]]] = {id_: [] for id_ in ids}
    for row in truth.annotations:
        own.get(row["image_id"], []).append(row)
    real = things_of(truth, own)
    found = {n: answers(n, truth, ids, asked.images, asked.models, asked.cache) for n in ("plain", *asked.views, *asked.others)}
    curves, all_figures = {}, {}
    for least in asked.min_scores:
        kept = {name: strong(one, least) for name, one in found.items()}
        errors = np.array([compute_error(real[id_], kept["plain"][id_]) for id_ in ids])
        views, others = ({name: kept[name] for name in names} for names in (asked.views, asked.others))
        risks = risks_of(kept["plain"], views, others, sizes)
        all_figures[str(least)] = measured(errors, risks, asked.samples)
        curves[least] = (errors, risks)
        print("\n".join(table(all_figures[str(least)], least)) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps(all_figures, indent=1))
    if asked.plot:
        plot(asked.plot, curves)


if __name__ == "__main__":
    main()
