"""``annofree train``: make the bundled tiny models again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from annofree.apps.cli.commands.train_detector import detector
from annofree.apps.cli.commands.train_selfmask import selfmask
from annofree.apps.cli.commands.train_tiny_clip_vit import tiny_clip_vit
from annofree.apps.cli.commands.train_zutis import zutis
from annofree.apps.cli.help import PlainCommand, PlainGroup

__all__ = ["train"]

train = typer.Typer(
    help="Train models; the bundled tiny ones were made by these commands.", no_args_is_help=True, cls=PlainGroup
)
train.command(cls=PlainCommand)(tiny_clip_vit)
train.command(cls=PlainCommand)(selfmask)
train.command(cls=PlainCommand)(zutis)
train.command(cls=PlainCommand)(detector)

_Out = Annotated[Path, typer.Option(help="The folder to write the model to; a run stopped there goes on.")]
_Minutes = Annotated[float | None, typer.Option(help="Stop after this many minutes.", min=0.01)]
_Samples = Annotated[int | None, typer.Option(help="Stop after this many pictures.", min=1)]
_Pool = Annotated[int | None, typer.Option(help="Pictures rendered ahead.", min=8)]
_Seed = Annotated[int, typer.Option(help="Of the scenes and the weights.", min=0)]
_Font = Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, where the system has none.")]
_Device = Annotated[str, typer.Option(help="cpu or cuda.")]


@train.command(cls=PlainCommand)
def tiny_clip(
    out: _Out,
    minutes: _Minutes = None,
    samples: _Samples = None,
    pool: _Pool = None,
    seed: _Seed = 0,
    font: _Font = None,
    device: _Device = "cpu",
) -> None:
    """Train the tiny CLIP on captions of the emoji world; 90 minutes on one core by default.

    Example: annofree train tiny-clip --out tiny-clip
    """
    from annofree.training.tiny.clip import BUDGET, POOL, fit_tiny_clip

    budget = replace(BUDGET, minutes=minutes or BUDGET.minutes, samples=samples or BUDGET.samples)
    figures = fit_tiny_clip(out, budget, seed=seed, font=font, device=device, pool_size=pool or POOL)
    _report(out, figures)


@train.command(cls=PlainCommand)
def tiny_sam(
    out: _Out,
    minutes: _Minutes = None,
    samples: _Samples = None,
    pool: _Pool = None,
    seed: _Seed = 0,
    font: _Font = None,
    device: _Device = "cpu",
) -> None:
    """Train the tiny SAM on class-agnostic masks of the emoji world; 118 minutes by default.

    Example: annofree train tiny-sam --out tiny-sam
    """
    from annofree.training.tiny.sam import BUDGET, POOL, fit_tiny_sam

    budget = replace(BUDGET, minutes=minutes or BUDGET.minutes, samples=samples or BUDGET.samples)
    figures = fit_tiny_sam(out, budget, seed=seed, font=font, device=device, pool_size=pool or POOL)
    _report(out, figures)


@train.command(cls=PlainCommand)
def tiny_dino(
    out: _Out,
    minutes: _Minutes = None,
    samples: _Samples = None,
    pool: _Pool = None,
    seed: _Seed = 0,
    font: _Font = None,
    device: _Device = "cpu",
) -> None:
    """Train the tiny DINO on pictures of the emoji world, without any label; 20 minutes at most by default.

    Example: annofree train tiny-dino --out tiny-dino
    """
    from annofree.training.tiny.dino import BUDGET, POOL, fit_tiny_dino

    budget = replace(BUDGET, minutes=minutes or BUDGET.minutes, samples=samples or BUDGET.samples)
    figures = fit_tiny_dino(out, budget, seed=seed, font=font, device=device, pool_size=pool or POOL)
    _report(out, figures)


@train.command(cls=PlainCommand)
def found(
    out: _Out,
    dino: Annotated[Path, typer.Option(help="The folder of a DINO, such as `annofree train tiny-dino` makes.")],
    refine: Annotated[Literal["pamr", "none"], typer.Option(help="How targets are drawn to edges.")] = "pamr",
    control: Annotated[bool, typer.Option(help="Do the same on random weights and report that, too.")] = True,
    minutes: _Minutes = None,
    samples: _Samples = None,
    seed: _Seed = 0,
    font: _Font = None,
    device: _Device = "cpu",
) -> None:
    """Train FOUND's head on a DINO's keys, on pictures of the emoji world, unlabelled; 6 minutes, twice with its control.

    Example: annofree train found --dino tiny-dino --out tiny-found
    """
    from annofree.training.tiny.found_head import BUDGET, fit_found

    budget = replace(BUDGET, minutes=minutes or BUDGET.minutes, samples=samples or BUDGET.samples)
    figures = fit_found(out, budget, dino=dino, refine=refine, control=control, seed=seed, font=font, device=device)
    _report(out, figures)


def _report(out: Path, figures: dict[str, float]) -> None:
    print(f"{out}/card.json (emoji world, unseen scenes): " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
