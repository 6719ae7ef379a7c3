"""``annofree train tiny-clip-vit``: make the bundled tiny CLIP ViT again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["tiny_clip_vit"]


def tiny_clip_vit(
    out: Annotated[Path, typer.Option(help="The folder to write the model to; a run stopped there goes on.")],
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.", min=0.01)] = None,
    samples: Annotated[int | None, typer.Option(help="Stop after this many pictures.", min=1)] = None,
    pool: Annotated[
        int | None, typer.Option(help="Pictures of 128 px rendered ahead; a quarter as many of 256 px.", min=8)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)] = 0,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, where the system has none.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train the tiny CLIP ViT in the text space of tiny-clip, which teaches it; 70 minutes on one core by default.

    Example: annofree train tiny-clip-vit --out tiny-clip-vit
    """
    from annofree.training.tiny.clip_vit import BUDGET, POOL, fit_tiny_clip_vit

    budget = replace(BUDGET, minutes=minutes or BUDGET.minutes, samples=samples or BUDGET.samples)
    figures = fit_tiny_clip_vit(out, budget, seed=seed, font=font, device=device, pool_size=pool or POOL)
    said = ", ".join(f"{k} {v:.3g}" for k, v in figures.items())
    print(f"{out}/card.json (emoji world, unseen scenes): {said}")
