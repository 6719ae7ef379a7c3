"""``annofree index``: pictures in, an index of their embeddings out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from annofree.apps.cli.process import command_clock
from annofree.apps.cli.progress import progress
from annofree.apps.cli.summary import brief, spent
from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.protocols import VisionLanguage

__all__ = ["clip_of", "index"]


def index(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Folders, lists of paths (.txt), tars or pictures.", metavar="IMAGES", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to; a run stopped there goes on.", show_default=False)],
    models: Annotated[
        str, typer.Option(help="A CLIP, or a preset for its CLIP, as `annofree models list` has them; tiny knows emoji only.")
    ] = "fast",
    whole: Annotated[
        Literal["squash", "crop"] | None,
        typer.Option(help="How a picture becomes a square: all of it, or its middle; else as the model is used."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures embedded at once.", min=1)] = 32,
    shard: Annotated[int, typer.Option(help="Pictures a shard; a kill loses less than one shard.", min=1)] = 4096,
    threads: Annotated[int, typer.Option(help="Pictures read at once.", min=1)] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Embed pictures for `annofree retrieve`; the same command goes on after a kill.

    Exit code 0: all done; 1: some pictures failed and are named; 2: the call was wrong.

    Example: annofree index photos --out index
    """
    clock = command_clock()
    with progress("images", quiet or as_json, clock=clock, batch=batch) as show:
        from annofree.io.image_sources import Source
        from annofree.retrieval.build_index import build_index

        source = Source(inputs, exclude=out)
        clip = clip_of(models, device, {} if whole is None else {"whole": whole})
        manifest = build_index(
            source,
            out,
            clip,
            batch_size=batch,
            shard_size=shard,
            threads=threads,
            about={"models": models, "whole": whole},
            on_progress=show,
        )
    for name, why in manifest["failed"].items():
        print(f"failed: {why if name in why else f'{name}: {why}'}", file=sys.stderr)
    timings = clock.timings(show.eta.counted, len(manifest["failed"])).as_dict()
    if as_json:
        told = {key: manifest[key] for key in ("inputs", "rows", "dimension", "failed", "model")}
        print(json.dumps({**told, "timings": brief(timings)}, indent=2))
    elif not quiet:
        print(f"{manifest['rows']} of {manifest['inputs']} images, D = {manifest['dimension']}; {spent(timings)}")
        print(f"written: {out}")
    raise typer.Exit(1 if manifest["failed"] else 0)


def clip_of(spec: str, device: str, use: dict[str, Any]) -> VisionLanguage:
    """Load a CLIP by the name of its card, or that which gives a preset its clues, and set some of its use otherwise.

    Raises InputError for an unknown name and for a model that is no CLIP, MissingError without its weights.
    """
    from annofree.features.clip import Clip
    from annofree.hub.download import fetch
    from annofree.hub.presets import preset_named, presets
    from annofree.hub.store import card_named
    from annofree.methods.components import device_named

    if spec in presets() or "+" in spec:
        preset = preset_named(spec)
        card, use = preset.cards()["clip"], {**preset.use.get("clip", {}), **use}
    else:
        card = card_named(spec)
    if card.kind != "clip":
        raise InputError(f"expected a CLIP, such as openai-vit-l-14-336, or a preset, got {card.name}, a {card.kind}")
    place = device_named(device)
    (local,) = fetch([card], spec=spec, hint="for the emoji scenes --models tiny is bundled" if spec == "fast" else "")
    return Clip(local.folder, place, card=local.card, use=use)
