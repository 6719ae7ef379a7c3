"""``annofree segment``: pictures and names in, boxes and masks out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from annofree.apps.cli.progress import progress
from annofree.errors import InputError, unknown_name

if TYPE_CHECKING:
    from annofree.structures import Vocabulary

__all__ = ["segment"]

_TASKS = ("instance",)


def segment(
    inputs: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of pictures.", metavar="INPUT...", show_default=False)
    ],
    classes: Annotated[str | None, typer.Option(help='Names, such as "dog, cat: kitten | tabby, traffic light".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A text file with one such name a line.")] = None,
    method: Annotated[str, typer.Option(help="zip or sam_clip.")] = "zip",
    variant: Annotated[str, typer.Option(help="How the method is set, such as default, paper or official.")] = "default",
    models: Annotated[str, typer.Option(help="The preset of models; tiny is bundled and knows emoji.")] = "tiny",
    task: Annotated[str, typer.Option(help="What to find: instance.")] = "instance",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures encoded at once.", min=1)] = 4,
    limit: Annotated[int | None, typer.Option(help="Take only the first N pictures.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON instead of words.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Find the named things in pictures, and write annotations.json (COCO), overlays/ and run.json.

    Exit code 0: all done; 1: some pictures failed and are named; 2: the call was wrong.
    """
    if task not in _TASKS:
        raise unknown_name("task", task, _TASKS)
    vocabulary = _vocabulary(classes, classes_file)
    summary = _segment(inputs, vocabulary, method, variant, models, out, device, batch_size, limit, quiet or as_json)
    if as_json:
        print(json.dumps(summary, indent=2))
    elif not quiet:
        done, found = summary["timings"]["images"], summary["instances"]
        took = summary["timings"]["seconds_total"]
        print(f"{found} instances in {done} pictures, {took:.1f} s: {out}/annotations.json, {out}/overlays")
    raise typer.Exit(1 if summary["failed"] else 0)


def _vocabulary(classes: str | None, classes_file: Path | None) -> Vocabulary:
    from annofree.structures import Vocabulary

    if (classes is None) == (classes_file is None):
        raise InputError(
            'expected either --classes "dog, cat" or --classes-file FILE, got ' + ("neither" if classes is None else "both")
        )
    if classes is not None:
        return Vocabulary.of(classes if classes.strip() else [])
    assert classes_file is not None  # noqa: S101
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"expected a text file of class names at {classes_file}, but it cannot be read: {problem}") from None
    return Vocabulary.of([line for line in lines if line.strip() and not line.lstrip().startswith("#")])


def _segment(
    inputs: list[Path],
    vocabulary: Vocabulary,
    method: str,
    variant: str,
    models: str,
    out: Path,
    device: str,
    batch_size: int,
    limit: int | None,
    quiet: bool,
) -> dict[str, Any]:
    """Run the method over the pictures; whatever happens, what was done is written."""
    from annofree.datasets.folder import common_folder, find_images
    from annofree.formats.run_folder import RunFolder
    from annofree.methods.catalogue import load
    from annofree.running.local import run

    paths = find_images(inputs, exclude=out)[:limit]
    segmenter = load(method, models=models, variant=variant, device=device)
    folder = RunFolder.create(out, vocabulary.names, root=common_folder(inputs))
    remarks = segmenter.remarks(vocabulary)
    for remark in remarks if not quiet else []:
        print(f"note: {remark}", file=sys.stderr)
    failed: dict[str, str] = {}

    def fail(path: Path, problem: Exception) -> None:
        why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        failed[str(path)] = why if str(path) in why else f"{path}: {why}"
        print(f"failed: {failed[str(path)]}", file=sys.stderr)

    settings = {
        "classes": [list(s) for s in vocabulary.synonyms],
        "batch_size": batch_size,
        "models": models,
        "variant": variant,
    }
    summary: dict[str, Any] = {
        "settings": settings,
        "provenance": segmenter.provenance,
        "remarks": remarks,
        "versions": _versions(),
    }
    timings: dict[str, float] = {}
    try:
        with progress("pictures", quiet) as show:
            timings = run(
                segmenter, paths, vocabulary, batch_size=batch_size, on_result=folder.add, on_failure=fail, on_progress=show
            ).as_dict()
    finally:
        summary |= {"timings": timings or {"images": folder.images}, "failed": failed, "instances": folder.instances}
        folder.finish(summary)
    return summary


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("annofree", "torch", "torchvision", "open_clip_torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}
