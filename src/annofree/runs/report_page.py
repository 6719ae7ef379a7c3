"""Content of the report page: image rows, tables and counts for the template report.html."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annofree.render.html import format_count, render_template
from annofree.render.page_images import ShownImage
from annofree.runs.store.counts import STEPS, ClassCount
from annofree.runs.store.summary import RunSummary

__all__ = ["GENERATOR", "PageParts", "Row", "choose_rows", "explain_scores", "render_page"]

GENERATOR = "annofree report"

_MOST_LINES = 1000  # of the quarantine
_UNCALIBRATED = "the scores are not calibrated"  # begins the remark of a run, which the page says in its own words
_KINDS = {"instances": "Instances", "labels": "Label maps", "panoptic": "Panoptic maps"}


@dataclass(frozen=True)
class Row:
    """A row of images on the page: their ids, a heading, and what they have in common."""

    key: str
    heading: str
    about: str
    ids: Sequence[int]


@dataclass(frozen=True)
class PageParts:
    """What was drawn for the page: rows, images by id, the sheets of classes; all ``names`` that have a color."""

    names: Sequence[str]
    rows: Sequence[Row]
    images: Mapping[int, ShownImage]
    sheets: Sequence[tuple[ClassCount, str]]


def choose_rows(summary: RunSummary, shown: int) -> list[Row]:
    """Choose the images of a page, each once: all of a small run, else the most confident, least confident and emptiest.

    >>> [row.key for row in choose_rows(RunSummary({}), 12)]
    []
    """
    found, most = summary.pictures, 3 * shown
    if len(found) <= most or not summary.has_instances:
        ids = list(found)[:most]
        return [Row("all", "", "", ids)] if ids else []
    left = dict(found)
    keys: dict[str, Callable[[int], Any]] = {
        "surest": lambda id_: -left[id_].mean_score,
        "least": lambda id_: left[id_].mean_score,
        "emptiest": lambda id_: (left[id_].instances > 0, left[id_].covered),
    }
    texts = {
        "surest": ("The surest", "Highest mean score of their instances."),
        "least": ("The least sure", "Lowest mean score of their instances; annofree review ranks what to check first."),
        "emptiest": ("The emptiest", "Nothing was found in them, or little of them is covered."),
    }
    rows = []
    for key, order in keys.items():
        compared = (id_ for id_, counted in left.items() if counted.instances or key == "emptiest")
        ids = heapq.nsmallest(shown, compared, key=order)
        rows.append(Row(key, *texts[key], ids))
        left = {id_: counted for id_, counted in left.items() if id_ not in ids}
    return [row for row in rows if row.ids]


def explain_scores(about: Mapping[str, Any]) -> str:
    """Describe the scores of a run: probabilities if calibrated, else ranks.

    >>> explain_scores({})
    'Scores are not calibrated: they rank instances, but are no probabilities.'
    """
    provenance = about.get("provenance") or {}
    methods = [m for m in provenance.get("methods") or [provenance] if isinstance(m, dict)]
    method = next((m for m in methods if isinstance(m.get("policy"), dict)), {})
    policy: Mapping[str, Any] = method.get("policy") or {}
    if not policy.get("calibrated"):
        return "Scores are not calibrated: they rank instances, but are no probabilities."
    fits = [part.get("calibration") or {} for part in (policy, method.get("settings") or {})]
    fitted = next((f", as fitted on {fit['fitted_on']}" for fit in fits if fit.get("fitted_on")), "")
    kept = f" The run kept nothing below {policy['floor']:.2f}." if policy.get("floor") else ""
    return f"Scores are calibrated: a score is the probability that mask (at IoU 0.5) and name are right{fitted}.{kept}"


def render_page(summary: RunSummary, parts: PageParts) -> str:
    """Return the page of a run."""
    names = parts.names
    total = len(summary.pictures) or int((summary.about.get("timings") or {}).get("images") or 0)
    has = {"instances": summary.has_instances} | {
        kind: any(layer.kind == kind for image in parts.images.values() for layer in image.layers)
        for kind in ("labels", "panoptic")
    }
    return render_template(
        "report.html",
        generator=GENERATOR,
        title=f"Run of {format_count(total, 'image')}",
        names=names,
        script=True,
        index={name: k for k, name in enumerate(names)},
        summary=summary,
        facts=_facts(summary),
        meaning=explain_scores(summary.about) if summary.instances else "",
        remarks=[r for r in summary.about.get("remarks") or [] if not str(r).startswith(_UNCALIBRATED)],
        kinds={kind: words for kind, words in _KINDS.items() if has[kind]},
        about_images=_about_images(total, parts.rows),
        rows=parts.rows,
        images=parts.images,
        classes=sorted(summary.classes.values(), key=lambda c: -c.instances),
        sheets=parts.sheets,
        without_sheet=sum(c.instances > 0 for c in summary.classes.values()) - len(parts.sheets),
        quarantine=list(summary.quarantine.items())[:_MOST_LINES],
        told=_told(summary.about),
        whole=json.dumps(summary.about, indent=1, ensure_ascii=False).split("\n"),
        tallies=_tallies(summary, names),
    )


def _facts(summary: RunSummary) -> list[str]:
    facts = []
    if summary.has_instances:
        empty = sum(not p.instances for p in summary.pictures.values())
        there = sum(c.instances > 0 for c in summary.classes.values())
        facts += [
            format_count(summary.instances, "instance"),
            f"{there} of {format_count(len(summary.classes), 'class', 'classes')}",
        ]
        facts += [f"{format_count(empty, 'image')} with nothing found"]
    facts += [f"{format_count(len(summary.quarantine), 'image')} in quarantine"] if summary.quarantine else []
    tiers = sorted({str(m["tier"]) for m in summary.list_models()})
    return facts + ([f"supervision tier {tiers[-1]}"] if tiers else [])


def _about_images(total: int, rows: Sequence[Row]) -> str:
    """Say which images of how many are shown."""
    count = sum(len(row.ids) for row in rows)
    if count == total:
        return f"All {format_count(total, 'image')} of the run." if total > 1 else "The only image of the run."
    if len(rows) == 1:
        return f"The first {count:,} of the run's {total:,} images; all are in its folder, and --shown shows more."
    told = ", ".join(f"the {len(row.ids)} {row.heading.removeprefix('The ')}" for row in rows)
    return (
        f"{count:,} of the run's {total:,} images, each once: {told}. "
        "All are in annotations.json; --shown shows more of them here."
    )


def _told(about: Mapping[str, Any]) -> dict[str, str]:
    """The lines of provenance, by what they are."""
    command = about.get("command") or ""
    facts = {"Command": command if isinstance(command, str) else " ".join(map(str, command))}
    facts |= {
        key.capitalize(): json.dumps(_of_all_calls(about[key]), ensure_ascii=False)
        for key in ("settings", "versions", "timings")
        if about.get(key)
    }
    return {name: text for name, text in facts.items() if text}


def _tallies(summary: RunSummary, names: Sequence[str]) -> dict[str, list[list[list[int]]]]:
    """How many instances and images of each class reach which step of the slider: [step, count], where there are any."""
    kinds = {"instances": "steps", "images": "picture_steps"}
    tallies: dict[str, dict[str, list[int]]] = {kind: {name: [0] * (STEPS + 1) for name in names} for kind in kinds}
    for counted in summary.classes.values():
        for kind, field in kinds.items():
            own = tallies[kind][counted.name]
            tallies[kind][counted.name] = [a + b for a, b in zip(own, getattr(counted, field), strict=True)]
    return {kind: [[[step, n] for step, n in enumerate(own) if n] for own in found.values()] for kind, found in tallies.items()}


def _of_all_calls(told: Any) -> Any:
    """The timings of a run, without those of its last call."""
    return {k: v for k, v in told.items() if k != "last_call"} if isinstance(told, Mapping) else told
