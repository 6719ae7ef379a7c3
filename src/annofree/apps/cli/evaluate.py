"""``annofree evaluate``: score predictions, or a method, against truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.evaluate_classes import class_scores, group_scores, of_truth, split_truth, write_page
from annofree.apps.cli.plan import DEFAULTS, policy_named
from annofree.apps.cli.progress import progress
from annofree.apps.cli.tables import console
from annofree.errors import InputError, unknown_name

if TYPE_CHECKING:
    from annofree.formats.coco import CocoFile

__all__ = ["evaluate"]


def evaluate(
    truth: Annotated[Path, typer.Option(help="COCO instances; for semantic also a folder of label maps or a data set's root.")],
    images: Annotated[Path | None, typer.Option(help="The folder of its pictures: run a method on them.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="annotations.json of a run, or a COCO results list.")] = None,
    method: Annotated[
        str | None, typer.Option(help="With --images: the method; else zip for instances, clip_diy for label maps.")
    ] = None,
    variant: Annotated[str, typer.Option(help="With --images: how the method is set.")] = "default",
    models: Annotated[str, typer.Option(help="With --images: the preset of models.")] = "tiny",
    policy: Annotated[
        str, typer.Option(help="Instances, with --images: score the whole ranking (all), or the answer that segment gives.")
    ] = "all",
    objectness: Annotated[
        str, typer.Option(help="Semantic, with --images: found, found-bkg, tokencut or none, for clip_diy.")
    ] = "found",
    device: Annotated[str, typer.Option(help="With --images: auto, cpu, cuda, ...")] = "auto",
    by: Annotated[str | None, typer.Option(help="Score groups of pictures apart, by this field of the truth's images.")] = None,
    task: Annotated[str, typer.Option(help="Score instances or label maps: instance or semantic.")] = "instance",
    protocol: Annotated[str, typer.Option(help="Semantic: whose rules, for example voc21 or clip-diy-coco.")] = "default",
    split: Annotated[str | None, typer.Option(help="Semantic: the data set's split, where it has several.")] = None,
    novel: Annotated[
        str | None, typer.Option(help="Instances: score these names and all others apart too; coco-17 for COCO's 17 and 48.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Instances: score each class apart too.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Instances: write curves and the worst mistakes as a page to this folder.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="With --page and --predictions: the folder of the truth's pictures, to cut mistakes from."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.")] = None,
) -> None:
    """Score instances (AP, AR, separation of touching pairs) or, with --task semantic, label maps (mIoU by a protocol)."""
    from annofree.formats.coco import CocoFile
    from annofree.formats.files import make_folder

    if task not in ("instance", "semantic"):
        raise unknown_name("task", task, ("instance", "semantic"))
    method = method or DEFAULTS[task]
    if task == "semantic":
        for option, given in {"--by": by, "--novel": novel, "--per-class": per_class or None, "--page": page}.items():
            if given is not None:
                raise InputError(f"expected no {option} with --task semantic; leave it out")
        _refuse_folder(out)
        _semantic(truth, images, predictions, protocol, split, method, variant, models, objectness, device, out)
        return
    if protocol != "default" or split is not None:
        raise InputError("expected --protocol and --split with --task semantic only; leave them out")
    if (images is None) == (predictions is None):
        raise InputError("expected either --images DIR or --predictions FILE, got " + ("both" if images else "neither"))
    _refuse_folder(out)
    if out is not None:
        make_folder(out.parent)
    if pictures is not None and (page is None or predictions is None):
        raise InputError("expected --pictures with --page and --predictions only; leave it out")
    whole = CocoFile.read(truth)
    known, apart = split_truth(whole, novel)
    found: Any
    if predictions is not None:
        found, about = _read(predictions, whole)
        found = of_truth(found, known)
    else:
        found, about = _run(known, images, method, variant, models, device, policy_named(policy))
    results = {
        group: {**_scores(known, found, ids), **group_scores(known, found, ids, apart)}
        for group, ids in _groups(known, by).items()
    }
    results |= {"classes": class_scores(known, found)} if per_class else {}
    _show(results)
    if page is not None:
        print(f"written: {write_page(page, known, found, pictures or images, apart)}")
    if out is not None:
        from annofree.evaluation.report import to_json_dict
        from annofree.formats.files import write_json

        scores = {group: to_json_dict(s) for group, s in results.items()}
        write_json(
            out, {"protocol": "COCO, maxDets 1/10/100, all categories of the truth", **about, "scores": scores}, indent=2
        )


def _refuse_folder(out: Path | None) -> None:
    if out is not None and out.is_dir():
        raise InputError(f"expected a file to write the scores to, but {out} is a folder; name one in it, {out}/scores.json")


def _semantic(
    truth: Path,
    images: Path | None,
    predictions: Path | None,
    protocol: str,
    split: str | None,
    method: str,
    variant: str,
    models: str,
    objectness: str,
    device: str,
    out: Path | None,
) -> None:
    from annofree.apps.cli.evaluate_semantic import evaluate_semantic
    from annofree.methods.catalogue import entry_of, load

    def load_method() -> Any:
        asked: dict[str, Any] = {"objectness": objectness} if entry_of(method, variant).objectness else {}
        return load(method, models=models, variant=variant, device=device, **asked)

    evaluate_semantic(truth, images, predictions, protocol, split, load_method, out)


def _read(predictions: Path, truth: CocoFile) -> tuple[Any, dict[str, Any]]:
    from annofree.evaluation.predictions import read_predictions

    # class-agnostic scores need no names, but class-aware ones do: read once, by name
    return read_predictions(predictions, truth), {"predictions": predictions.name}


def _run(
    truth: CocoFile, images: Path | None, method: str, variant: str, models: str, device: str, policy: str
) -> tuple[Any, dict[str, Any]]:
    from annofree.evaluation.running import predicted, truth_images
    from annofree.methods.catalogue import load

    assert images is not None  # noqa: S101
    own: dict[str, Any] = {} if policy == "all" else {"policy": policy}
    segmenter = load(method, models=models, variant=variant, device=device, **own)
    with progress("pictures") as show:
        return predicted(segmenter, truth_images(truth, images), truth, show), {"provenance": segmenter.provenance}


def _groups(truth: CocoFile, by: str | None) -> dict[str, list[int] | None]:
    groups: dict[str, list[int] | None] = {}
    for row in truth.images if by else []:
        if by not in row:
            raise InputError(f"expected each picture of the truth to have the field {by!r}; {row['file_name']} has not")
        members = groups.setdefault(f"{by} {row[by]}", [])
        assert members is not None  # noqa: S101
        members.append(row["id"])
    return {**groups, "all": None}


def _scores(truth: CocoFile, found: Any, ids: list[int] | None) -> Any:
    from annofree.evaluation.running import scores_of

    return scores_of(truth, found, ids)


def _show(results: dict[str, Any]) -> None:
    from annofree.evaluation.instance import InstanceScores
    from annofree.evaluation.report import as_sentence, as_table
    from annofree.evaluation.separation import Separation

    screen = console()
    for group, scores in results.items():
        screen.print(as_table({n: s for n, s in scores.items() if isinstance(s, InstanceScores)}, group))
        for name, s in scores.items():
            if isinstance(s, Separation):
                rate = "-" if s.rate is None else f"{100 * s.rate:.1f} %"
                screen.print(f"{name}: {s.separated} of {s.pairs} touching same-class pairs, {rate}")
            elif not isinstance(s, InstanceScores):
                screen.print(f"as an answer: {as_sentence(s)}")
