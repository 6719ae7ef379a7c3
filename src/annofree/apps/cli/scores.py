"""Scores of an evaluation as tables on the standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from annofree.apps.cli.summary import describe_timings
from annofree.apps.cli.tables import open_console
from annofree.io.text import escape_json

if TYPE_CHECKING:
    from annofree.evaluation.predict_semantic import SemanticResult
    from annofree.evaluation.score_instances import InstanceEvaluation
    from annofree.pipelines.evaluate import Evaluation
    from annofree.runs.clock import StageTimer

__all__ = ["show_evaluation"]


def show_evaluation(done: Evaluation, clock: StageTimer, as_json: bool) -> None:
    """Print an evaluation as tables, and where the time went, or as JSON."""
    if as_json:
        print(escape_json(json.dumps(done.to_json_dict(), indent=2, ensure_ascii=False)))
        return
    from annofree.evaluation.score_instances import InstanceEvaluation

    if isinstance(done.result, InstanceEvaluation):
        _show_instances(done.result)
    else:
        _show_semantic(done.result)
    if done.images:
        after = {"scores": done.seconds_scores} if isinstance(done.result, InstanceEvaluation) else {}
        print(f"{done.images} images; {describe_timings(clock.summarize(done.images).as_dict(), **after)}")


def _show_instances(result: InstanceEvaluation) -> None:
    from annofree.evaluation.metrics.instance import InstanceScores
    from annofree.evaluation.reports.instance import as_table

    for group, scores in result.scores.items():
        open_console().print(as_table({n: s for n, s in scores.items() if isinstance(s, InstanceScores)}, group))
        for name, score in scores.items():
            _show_score(group, name, score, result.rules.iou_type)


def _show_score(group: str, name: str, score: Any, iou_type: Any) -> None:
    from annofree.evaluation.metrics.answer import AnswerScores
    from annofree.evaluation.metrics.oracles import OracleSplit
    from annofree.evaluation.metrics.separation import Separation
    from annofree.evaluation.reports.instance import as_oracle_table, as_sentence

    if isinstance(score, Separation):
        rate = "-" if score.rate is None else f"{100 * score.rate:.1f} %"
        open_console().print(f"{name}: {score.separated} of {score.pairs} touching same-class pairs, {rate}")
    elif isinstance(score, AnswerScores):
        open_console().print(f"as an answer: {as_sentence(score)}")
    elif isinstance(score, OracleSplit):
        open_console().print(as_oracle_table(score, iou_type, f"{group}: where quality is lost"))


def _show_semantic(result: SemanticResult) -> None:
    from annofree.evaluation.reports.semantic import as_class_table, as_semantic_table

    rules = result.about["protocol"]
    open_console().print(f"{result.about['dataset']}, protocol {rules['name']}: {rules['about']}")
    open_console().print(as_class_table(result.scores, "classes"))
    open_console().print(as_semantic_table({"all": result.scores}, result.about["dataset"]))
