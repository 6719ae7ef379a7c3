"""``annofree evaluate --task semantic``: score label maps, or a method, against semantic truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import spent
from annofree.apps.cli.tables import console
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.evaluation.predict_semantic import SemanticResult

__all__ = ["evaluate_semantic"]


def evaluate_semantic(
    truth: Path,
    images: Path | None,
    predictions: Path | None,
    protocol: str,
    split: str | None,
    load_method: Any,
    out: Path | None,
    as_json: bool = False,
) -> None:
    """Score by a protocol: the folder of label maps ``predictions``, or what ``load_method()`` says of the pictures."""
    from annofree.evaluation.predict_semantic import score_label_maps, score_method
    from annofree.evaluation.protocols.semantic import semantic_protocol
    from annofree.io.atomic import make_folder
    from annofree.protocols import SemanticSegmenter

    rules = semantic_protocol(protocol)
    if images is not None and predictions is not None:
        raise InputError("expected either --images DIR or --predictions DIR, got both")
    if out is not None:
        if out.suffix.lower() == ".png":
            raise InputError(f"expected a file for the scores such as {out.with_suffix('.json')}, for the matrix goes to {out}")
        make_folder(out.parent)
    dataset = rules.dataset(truth, images, split)
    if predictions is not None:
        with progress("label maps") as show:
            result = score_label_maps(predictions, dataset, rules, show)
    else:
        clock = command_clock()
        with progress("images", clock=clock) as show:
            method = load_method()
            if not isinstance(method, SemanticSegmenter):
                raise InputError(
                    f"expected a method that names every pixel, got {type(method).__name__}, which finds instances"
                )
            result = score_method(method, dataset, rules, show)
        if not as_json:
            print(f"{len(dataset)} images; {spent(clock.timings(len(dataset)).as_dict())}")
    if as_json:
        print(json.dumps(result.to_json_dict(), indent=2, ensure_ascii=False))
    else:
        _show(result)
    if out is not None:
        _write(result, out)


def _show(result: SemanticResult) -> None:
    from annofree.evaluation.reports.semantic import class_table, semantic_table

    screen = console()
    rules = result.about["protocol"]
    screen.print(f"{result.about['dataset']}, protocol {rules['name']}: {rules['about']}")
    screen.print(class_table(result.scores, "classes"))
    screen.print(semantic_table({"all": result.scores}, result.about["dataset"]))


def _write(result: SemanticResult, out: Path) -> None:
    from annofree.evaluation.reports.semantic import draw_confusion
    from annofree.io.atomic import write_atomic, write_json

    write_json(out, result.to_json_dict(), indent=2)
    picture = draw_confusion(result.confusion, result.names)
    write_atomic(out.with_suffix(".png"), lambda temporary: picture.save(temporary, "PNG"))
