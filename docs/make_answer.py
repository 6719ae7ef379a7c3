"""Draw docs/answer-steps.png, one image followed from its candidates to the answer, and fill the counts of docs/answers.md.

uv run python docs/make_answer.py [--image examples/scenes/market.jpg] [--names "orange, apple, banana"]
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image
from pages import fill
from PIL import ImageDraw, ImageFont

from annofree.detections.nms import Overlaps
from annofree.io.images import read_image
from annofree.methods.build import MethodSpec
from annofree.render.overlay import draw_overlay
from annofree.structures import Detections, Image, Vocabulary

PAGE = Path(__file__).with_name("answers.md")
PICTURE = Path(__file__).with_name("answer-steps.png")
BEGIN = "<!-- one image: docs/make_answer.py -->"
_SIDE, _GAP, _HEAD, _FONT = 480, 12, 40, 22  # px


@dataclass(frozen=True)
class Step:
    """What is left after a step, the ``title`` over its image, and what happened in words."""

    title: str
    found: Detections
    words: str


def steps(image: Image, names: str) -> list[Step]:
    """From the candidates of an image to its answer, on the tiny models."""
    vocabulary = Vocabulary.of(names)
    answering = MethodSpec("consensus", models="tiny", policy="answer").build()
    method, policy, count = answering.method, answering.policy, len(vocabulary)
    encoding = answering.encode([image])[0][0]
    candidates = method.list_candidates(encoding)
    named = method.verify(encoding, vocabulary, answering.distractors.choose(vocabulary, answering.clip))
    settled = replace(policy, floor=0.0).decide(named)
    answer = answering.instances(image, vocabulary)
    alone = Overlaps(pair=policy.overlaps.pair).apply(named)
    won = Counter(name for k, name in zip(named.class_ids.tolist(), named.labels, strict=True) if k >= count)
    likeliest = ", ".join(f"{name} ({n})" for name, n in won.most_common(3))
    asked, left = int((named.class_ids < count).sum()), int((settled.class_ids < count).sum())
    return [
        Step("candidates", candidates, f"{len(candidates)} candidates that have no name, the surest of SAM and the detector"),
        Step(
            "named again",
            named,
            f"{asked} go to a name asked for, {len(named) - asked} to a distractor, most to {likeliest}; {len(named)} are left "
            "when equal masks of a name are one",
        ),
        Step(
            "overlaps settled",
            settled,
            f"{len(named) - len(alone)} are two things in one; of the rest, what overlaps or lies in something likelier goes: "
            f"{len(settled)} are left, {left} of them with a name asked for",
        ),
        Step("the answer", answer, f"{len(answer)} are likely enough ({policy.floor:g} or more): {_told(answer)}"),
    ]


def _told(answer: Detections) -> str:
    return (
        ", ".join(f"{name} {score:.2f}" for name, score in zip(answer.labels, answer.scores.tolist(), strict=True)) or "nothing"
    )


def drawn(image: Image, made: list[Step]) -> PIL.Image.Image:
    """The steps side by side, each under its title."""
    font = ImageFont.load_default(_FONT)
    sheet = PIL.Image.new("RGB", (len(made) * (_SIDE + _GAP) - _GAP, _SIDE + _HEAD), "white")
    for k, step in enumerate(made):
        panel = draw_overlay(image, step.found).resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)
        sheet.paste(panel, (k * (_SIDE + _GAP), _HEAD))
        title = f"{k + 1}. {step.title}: {len(step.found)}"
        ImageDraw.Draw(sheet).text((k * (_SIDE + _GAP), _HEAD // 2), title, fill=(27, 31, 36), font=font, anchor="lm")
    return sheet


def main() -> None:
    """Draw the image and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path(__file__).parents[1] / "examples/scenes/market.jpg")
    parser.add_argument("--names", default="orange, apple, banana")
    asked = parser.parse_args()
    image = read_image(asked.image)
    made = steps(image, asked.names)
    drawn(image, made).quantize(192).save(PICTURE, optimize=True)
    lines = "\n".join(f"{k}. **{step.title}**: {step.words}." for k, step in enumerate(made, 1))
    fill(PAGE, BEGIN, f"`{asked.image.name}`, asked for {asked.names}, tiny models:\n\n{lines}")


if __name__ == "__main__":
    main()
