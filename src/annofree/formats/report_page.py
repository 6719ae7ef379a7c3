"""The page of a report, as HTML: sections, tables and figures; every text from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annofree.formats.report_charts import bar, histogram, plain
from annofree.formats.run_summary import ClassCount, PictureCount, RunSummary
from annofree.ops.palette import Color, hexadecimal

__all__ = ["Figure", "PageParts", "page"]

_MOST_LINES = 1000  # of the quarantine


@dataclass(frozen=True)
class Figure:
    """A picture on the page: what was counted in it, its thumbnail, a link to the overlay, "" for none, (width, height) px."""

    counted: PictureCount
    place: str
    link: str
    size: tuple[int, int]


@dataclass(frozen=True)
class PageParts:
    """What was drawn for the page: figures by row, sheets by class, and how many classes have no sheet."""

    rows: Mapping[str, Sequence[Figure]]
    sheets: Sequence[tuple[ClassCount, str]]
    without_sheet: int


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--paper:#0d1117;--card:#161b22;--line:#3d444d;
--link:#79b8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:76rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--line)}
p{max-width:44rem;margin:.4rem 0}
.soft{color:var(--soft)}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;margin:1rem 0 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:.2rem 0 .5rem}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:middle;font-weight:400}
thead th{color:var(--soft);font-size:.9rem}
td.n,th.n{text-align:right}
td{overflow-wrap:anywhere}
.dot{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;margin-right:.5rem;border:1px solid var(--soft)}
svg.bar{display:block;width:9rem;height:.8rem}
svg.histogram{width:100%;max-width:26rem;height:auto}
svg.histogram text{font-size:12px;fill:currentColor}
td svg.histogram{width:9rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1.2rem;padding:0;list-style:none}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;overflow:hidden}
figure img{display:block;width:100%;height:auto}
figcaption{padding:.5rem .75rem;font-size:.9rem;overflow-wrap:anywhere}
.sheet img{max-width:100%;height:auto;border:1px solid var(--line);border-radius:.5rem}
.none{padding:3rem 1rem;text-align:center;color:var(--soft)}
pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;overflow:auto;font-size:.85rem}
footer{padding-top:2rem;padding-bottom:3rem}
"""

_ROWS = {
    "best": ("The surest pictures", "Highest mean score of their instances."),
    "least": ("The least sure pictures", "Lowest mean score of their instances; annofree review ranks what to check first."),
    "empty": ("The emptiest pictures", "Nothing was found in them, or little of them is covered."),
}


def page(generator: str, summary: RunSummary, parts: PageParts) -> str:
    """Return the page of a run."""
    title = f"Run of {_number(len(summary.pictures) or _done(summary), 'picture')}"
    sections = [
        ("classes", "Classes", _classes(summary)),
        ("scores", "Scores", _scores(summary)),
        ("shares", "Label maps", _shares(summary)),
        *((key, _ROWS[key][0], _figures(_ROWS[key][1], figures)) for key, figures in parts.rows.items()),
        ("instances", "The best instances of each class", _sheets(parts)),
        ("quarantine", "Quarantine", _quarantine(summary)),
        ("provenance", "Provenance", _provenance(summary)),
    ]
    told = [(key, heading, body) for key, heading, body in sections if body]
    links = "".join(f'<li><a href="#{key}">{plain(heading)}</a></li>' for key, heading, _ in told)
    bodies = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{plain(heading)}</h2>{body}</section>' for key, heading, body in told
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="{generator}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'; object-src 'none'; base-uri 'none'\">"
        f"<title>{plain(title)}</title><style>{_STYLE}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the content</a><header><h1>{plain(title)}</h1>{_summary(summary)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main id="main">{bodies}</main>'
        '<footer class="soft"><p>Made by annofree. Masks were made by models, not by people; check before you trust them.</p>'
        "</footer></body></html>\n"
    )


def _done(summary: RunSummary) -> int:
    return int((summary.about.get("timings") or {}).get("images") or 0)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _summary(summary: RunSummary) -> str:
    facts = []
    if summary.has_instances:
        empty = sum(not p.instances for p in summary.pictures.values())
        absent = sum(not c.instances for c in summary.classes.values())
        facts += [_number(summary.instances, "instance"), f"{len(summary.classes) - absent} of {len(summary.classes)} classes"]
        facts += [f"{_number(empty, 'picture')} with nothing found"]
    facts += [f"{_number(len(summary.quarantine), 'picture')} in quarantine"] if summary.quarantine else []
    tiers = sorted({str(m["tier"]) for m in summary.models()})
    facts += [f"supervision tier {tiers[-1]}"] if tiers else []
    remarks = "".join(f"<p><strong>Note:</strong> {plain(remark)}</p>" for remark in summary.about.get("remarks") or [])
    return f'<p class="soft">{plain("; ".join(facts))}</p>{remarks}'


def _dot(name: str, color: Color) -> str:
    return f'<span class="dot" style="background:{hexadecimal(color)}"></span><bdi>{plain(name)}</bdi>'


def _table(caption: str, heads: Sequence[str], rows: Iterable[str], numbers: Sequence[int] = ()) -> str:
    cells = "".join(f'<th scope="col"{_right(i in numbers)}>{plain(head)}</th>' for i, head in enumerate(heads))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{plain(caption)}"><table><caption>{plain(caption)}'
        f"</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _right(number: bool) -> str:
    return ' class="n"' if number else ""


def _classes(summary: RunSummary) -> str:
    ordered = sorted(summary.classes.values(), key=lambda c: -c.instances)
    most = max([1, *(c.instances for c in ordered)])
    heads = ("Class", "Instances", "", "Pictures", "Mean score", "Scores")
    rows = (_class_row(c, most) for c in ordered)
    caption = "Every class that was asked for, the most frequent first; scores from 0 to 1"
    return _table(caption, heads, rows, numbers=(1, 3, 4)) if ordered else ""


def _class_row(c: ClassCount, most: int) -> str:
    mean = f"{c.scores / c.instances:.2f}" if c.instances else "–"
    dot, colour = _dot(c.name, c.color), hexadecimal(c.color)
    chart = histogram(c.bins, f"Scores of {c.name}", colour) if c.instances else ""
    return (
        f'<tr><th scope="row">{dot}</th><td class="n">{c.instances:,}</td><td>{bar(c.instances / most, colour)}</td>'
        f'<td class="n">{c.pictures:,}</td><td class="n">{mean}</td><td>{chart}</td></tr>'
    )


def _scores(summary: RunSummary) -> str:
    if not summary.instances:
        return ""
    bins = summary.bins
    return f"<p>How sure the models were of each of the {summary.instances:,} instances.</p>{histogram(bins, 'All scores')}"


def _shares(summary: RunSummary) -> str:
    rows = (
        f'<tr><th scope="row">{_dot(name, summary.colors[name])}</th><td class="n">{100 * share:.1f} %</td>'
        f"<td>{bar(share, hexadecimal(summary.colors[name]))}</td></tr>"
        for name, share in summary.shares.items()
    )
    return _table("The mean part of a picture that each name has", ("Name", "Share", ""), rows, (1,)) if summary.shares else ""


def _figures(about: str, figures: Sequence[Figure]) -> str:
    items = "".join(f"<li>{_figure(figure)}</li>" for figure in figures)
    return f'<p class="soft">{plain(about)}</p><ul class="figures">{items}</ul>' if figures else ""


def _figure(figure: Figure) -> str:
    c = figure.counted
    found = f"{_number(c.instances, 'instance')}, mean score {c.mean_score:.2f}" if c.instances else "nothing found"
    if figure.place:
        alt, (width, height) = plain(f"{c.file_name} with what was found drawn over it: {found}"), figure.size
        image = f'<img src="{figure.place}" alt="{alt}" width="{width}" height="{height}" loading="lazy">'
    else:
        image = '<div class="none">no picture</div>'
    linked = f'<a href="{plain(figure.link)}">{image}</a>' if figure.link and figure.place else image
    return f"<figure>{linked}<figcaption><bdi>{plain(c.file_name)}</bdi><br>{plain(found)}</figcaption></figure>"


def _sheets(parts: PageParts) -> str:
    made = "".join(_sheet(c, place) for c, place in parts.sheets)
    left = _number(parts.without_sheet, "class").replace("classs", "classes")
    return made + (f"<p>{left} with fewer instances left out.</p>" if parts.without_sheet else "")


def _sheet(c: ClassCount, place: str) -> str:
    low, high = min(crop.score for crop in c.best), max(crop.score for crop in c.best)
    alt = plain(f"The best {len(c.best)} of {_number(c.instances, 'instance')} of {c.name}, scores {high:.2f} to {low:.2f}")
    return (
        f'<details class="sheet"><summary>{_dot(c.name, c.color)} ({c.instances:,})</summary>'
        f'<p><img src="{place}" alt="{alt}" loading="lazy"></p></details>'
    )


def _quarantine(summary: RunSummary) -> str:
    if not summary.quarantine:
        return "<p>No picture was left out.</p>"
    shown = list(summary.quarantine.items())[:_MOST_LINES]
    more = len(summary.quarantine) - len(shown)
    rows = (f'<tr><th scope="row"><bdi>{plain(name)}</bdi></th><td>{plain(reason)}</td></tr>' for name, reason in shown)
    rest = f"<p>{more:,} more in the run's files.</p>" if more else ""
    return _table("Pictures that were left out, and why", ("Picture", "Reason"), rows) + rest


def _provenance(summary: RunSummary) -> str:
    heads: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "Model": lambda m: m.get("name"),
        "Kind": lambda m: m.get("kind"),
        "Tier": lambda m: m.get("tier"),
        "Licence": lambda m: m.get("licence") or m.get("license"),
        "Revision": lambda m: m.get("revision") or "bundled",
    }
    rows = ("<tr>" + "".join(f"<td>{plain(of(m) or '–')}</td>" for of in heads.values()) + "</tr>" for m in summary.models())
    about, command = summary.about, summary.about.get("command") or ""
    told = f"<p>Command: <code>{plain(command if isinstance(command, str) else ' '.join(map(str, command)))}</code></p>"
    facts = {"Settings": about.get("settings"), "Versions": about.get("versions"), "Timings": about.get("timings")}
    lines = "".join(f"<p>{name}: <code>{plain(_compact(value))}</code></p>" for name, value in facts.items() if value)
    whole = "\n".join(map(plain, json.dumps(about, indent=1, ensure_ascii=False).split("\n")))
    return (
        (told if command else "")
        + lines
        + _table("The models", list(heads), rows)
        + f"<details><summary>All of run.json</summary><pre>{whole}</pre></details>"
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
