"""The bundled tiny models, all trained on one GPU within minutes, from a checkout alone and without a network.

    python benchmarks/train_tiny_models.py --out trained --minutes 9

What depends on nothing starts at once and side by side: the CLIP, the SAM, the DINO, and the images that names will be
retrieved from.  The CLIP ViT follows the CLIP, whose text tower it has; ZUTIS follows both.  Each training takes a share of
the minutes and lets its learning rate fall with them, as the machine's speed is not known beforehand.  Each stage writes to a
folder of its own and is passed over where that is complete, so a run that was killed is resumed by the same command.  The
CLIPs that it trains take the place of the bundled ones of the checkout, where the stages that follow look for them.

A stage that was trained elsewhere is examined at full length, and its presence of names fitted, by `--finish` on any machine:

    uv run python benchmarks/train_tiny_models.py --out trained --finish
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SHARES = {"clip": 0.22, "clip-vit": 0.15, "dino": 0.25}
"""Of the minutes, what each training has."""
SPARED = {"sam": 1.4, "zutis": 0.35}
"""Minutes before the end by which the other trainings end: what they need to begin and to write."""
AFTER = {
    "clip-vit": ("clip",),
    "archive": ("world", "clip"),
    "zutis": ("clip-vit", "archive"),
    "unseen": ("clip-vit", "archive"),
}
"""What a stage has to wait for."""
STAGES = ("world", "clip", "sam", "dino", "clip-vit", "archive", "zutis")

PICTURES, SIDE, SEED, K = 6500, 256, 5_000_000, 100
EXCLUDED = ("cat", "bus", "bicycle", "pizza", "laptop", "banana", "umbrella", "clock", "zebra", "chair")


def train_stage(stage: str, out: Path, minutes: float, workers: int, device: str, small: bool) -> None:
    """Do one stage, in this process."""
    folder = out / stage
    if stage == "world":
        describe_making(300 if small else PICTURES).draw_world(out, show)
    elif stage == "archive":
        make_archive(out, device, workers)
    elif stage in ("zutis", "unseen"):
        train_zutis(stage, out, minutes, workers, device, small)
    else:
        train_one(stage, folder, minutes, workers, device, small)


def describe_making(pictures: int) -> Any:
    """The making of recipes/emoji/zutis.toml, whose stages are taken one by one here."""
    from annofree.pipelines.training.zutis_stages import ZutisMaking

    return ZutisMaking(pictures, K, {"zutis": {}}, side=SIDE, seed=SEED)


def make_archive(out: Path, device: str, workers: int) -> None:
    """Index, retrieve, and mask, many images at once."""
    from annofree.formats.coco import CocoFile
    from annofree.pipelines.training.zutis_stages import measure_archive, measure_masks
    from annofree.retrieval.archive import MaskWriter
    from annofree.training.selfmask.spectral_voting import load_source

    archive = describe_making(PICTURES).build_archive(out, show, device)
    model = load_source("found", "tiny", "cpu").provenance
    with MaskWriter(out / "archive", {"by": "found", "refine": "pamr", "model": model}) as writer:
        left = [name for name in archive.ids if name not in writer.done]
        parts = [left[start : start + 40] for start in range(0, len(left), 40)]
        with ProcessPoolExecutor(max(1, workers), get_context("spawn")) as pool:
            for masks in pool.map(mask_part, [out] * len(parts), parts):
                for mask in masks:
                    writer.add(mask)
    truth = CocoFile.read(out / "world" / "truth.json")
    print(measure_archive(archive, truth) | measure_masks(archive, out / "archive", truth), flush=True)


def mask_part(out: Path, ids: list[str]) -> list[Any]:
    """The masks of some images of the archive, on one core."""
    import torch

    from annofree.retrieval.archive import Archive, Member
    from annofree.runs.archive_masks import mask_archive
    from annofree.training.selfmask.spectral_voting import load_source

    torch.set_num_threads(1)
    whole, found = Archive.read(out / "archive"), Collected()
    some = Archive(("some",), {"some": tuple(Member(i, 1.0) for i in ids)}, {i: whole.places[i] for i in ids})
    mask_archive(some, found, load_source("found", "tiny", "cpu"), refine="pamr")  # type: ignore[arg-type]
    return found.masks


class Collected:
    """Takes masks as a MaskWriter does, and keeps them."""

    def __init__(self) -> None:
        self.masks: list[Any] = []
        self.done: set[str] = set()

    def add(self, mask: Any) -> None:
        """Keep a mask."""
        self.masks.append(mask)


def train_zutis(stage: str, out: Path, minutes: float, workers: int, device: str, small: bool) -> None:
    """Train the segmenter on the archive."""
    from annofree.training.zutis.recipe import ZutisRecipe
    from annofree.training.zutis.train import fit_zutis

    recipe = ZutisRecipe(
        archive=out / "archive", clip="tiny-clip-vit", out=out / stage, name="tiny-zutis", world="emoji", licence="Apache-2.0",
        exclude=EXCLUDED if stage == "unseen" else (), min_part=0.95, max_border=0.1,
        scenes={"crop": 320, "images": [2, 7], "scale": [0.35, 1.2], "jitter": [0.3, 0.3, 0.3, 0.05], "whole_canvas": True},
        network={"queries": 32, "decoder_ffn": 256}, steps=1_000_000, minutes=minutes, batch=4 if small else 32,
        lr=5e-4, encoder_lr=3e-4, max_norm=0.1, logit_scale=20.0, stride=4, bf16=True, side=384, empty_weight=0.5,
        workers=workers, log_every=5 if small else 50, checkpoint_every=10 if small else 300,
    )  # fmt: skip
    fit_zutis(recipe, device=device, say=tell)


def train_one(stage: str, out: Path, minutes: float, workers: int, device: str, small: bool) -> None:
    """Train one of the tiny models that are drawn for."""
    from importlib import import_module

    from annofree.training.tiny.budget import Budget

    name = stage.replace("-", "_")
    fit = getattr(import_module(f"annofree.training.tiny.{name}"), f"fit_tiny_{name}")
    short: dict[str, Any] = {"exam_size": 30, "calibration_size": 30}
    budgets: dict[str, tuple[Budget, int, dict[str, Any]]] = {
        "clip": (Budget(samples=3_000_000, batch=512, lr=1.5e-3), 120_000, {"varied": 0.35, **short}),
        "clip-vit": (
            Budget(samples=2_000_000, batch=384, lr=1.2e-3), 48_000, {"varied": 0.35, **short}
        ),
        "sam": (Budget(samples=300_000, batch=48, lr=1.2e-3, weight_decay=0.02), 24_000, {"exam_size": 40}),
        "dino": (Budget(samples=800_000, batch=128, lr=1.5e-3, weight_decay=0.04, warmup=0.05), 24_000, {"exam_size": 40}),
    }  # fmt: skip
    budget, pool, more = budgets[stage]
    budget = replace(budget, minutes=minutes, paced=True, workers=workers)
    if small:
        budget, pool = replace(budget, samples=256, batch=16), 128
        more = more | {"exam_size": 6} | ({"calibration_size": 6} if "calibration_size" in more else {})
    fit(out, budget, pool_size=pool, device=device, say=tell, **more)


@contextmanager
def show(what: str) -> Iterator[Callable[[int, int], None]]:
    """Say what begins, and nothing more."""
    tell(what)
    yield lambda done, total: None


def tell(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def is_complete(out: Path, stage: str) -> bool:
    """Whether a stage has written all that it does."""
    ends = {"world": out / "world" / "truth.json", "archive": out / "archive" / "complete"}
    return ends.get(stage, out / stage / "card.json").exists()


def bundle(out: Path, stage: str) -> None:
    """Let the stages that follow find a model of this run where the bundled one lies."""
    if stage not in ("clip", "clip-vit"):
        return
    from annofree.hub.cards import find_bundled

    target = find_bundled(f"tiny-{stage}")
    for name in ("card.json", "open_clip_config.json", "open_clip_model.safetensors", "vocabulary.json"):
        shutil.copy(out / stage / name, target / name)


def run(out: Path, stages: list[str], minutes: float, workers: int, device: str, small: bool) -> int:
    """Run the stages, each as soon as what it needs is there; returns how many failed."""
    out.mkdir(parents=True, exist_ok=True)
    waiting, running = [s for s in stages if not is_complete(out, s)], dict[str, Any]()
    done, failed, began = {s for s in stages if s not in waiting}, set[str](), time.monotonic()
    while waiting or running:
        for stage in [s for s in waiting if all(n in done or n not in stages for n in AFTER.get(s, ()))]:
            waiting.remove(stage)
            left = minutes - (time.monotonic() - began) / 60
            share = left - SPARED[stage] if stage in SPARED else minutes * SHARES.get(stage, 0)
            running[stage] = start(out, stage, keep_minutes(out, stage, max(0.05, share)), workers, device, small)
            tell(f"{time.monotonic() - began:.0f} s: {stage} begins")
        time.sleep(0.5)
        for stage, job in list(running.items()):
            if job.poll() is None:
                continue
            del running[stage]
            tell(f"{time.monotonic() - began:.0f} s: {stage} ended with {job.returncode}")
            if job.returncode:
                failed.add(stage)
            else:
                done.add(stage)
                bundle(out, stage)
        for stage in [s for s in waiting if failed & {*AFTER.get(s, ())}]:
            waiting.remove(stage)
            failed.add(stage)  # and so what follows it
            tell(f"{stage} is left out, as {', '.join(sorted(failed & {*AFTER[stage]}))} failed")
    return len(failed)


def keep_minutes(out: Path, stage: str, minutes: float) -> float:
    """The minutes that a stage began with, in an earlier call perhaps: a course is resumed by the same ones only."""
    held = out / f"{stage}.minutes"
    if not held.is_file():
        held.write_text(str(minutes), encoding="utf-8")
    return float(held.read_text(encoding="utf-8"))


def start(out: Path, stage: str, minutes: float, workers: int, device: str, small: bool) -> subprocess.Popen[bytes]:
    """Start a stage in a process of its own, which writes to a log."""
    # what is drawn ahead takes its share of the cores
    drawers = {"world": 0, "clip": 3 * workers // 4, "sam": workers // 4, "dino": workers // 8, "clip-vit": workers // 2}
    own = drawers.get(stage, max(1, workers - workers // 4))
    command = [sys.executable, __file__, "--out", str(out), "--stage", stage, "--minutes", str(minutes), "--workers", str(own)]
    command += ["--device", device, *(["--small"] if small else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    with (out / f"{stage}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def finish(out: Path) -> None:
    """Examine models of this run at full length, and fit the presence of names anew."""
    from annofree.datasets.emoji.world import World
    from annofree.hub.cards import Card
    from annofree.training.tiny.clip_export import finish_card
    from annofree.training.tiny.clip_vit import find_best_path
    from annofree.training.tiny.evaluate import evaluate_clip, evaluate_dense_clip, evaluate_sam
    from annofree.training.tiny.evaluate_saliency import evaluate_dino

    for stage, examine in (("clip", evaluate_clip), ("clip-vit", evaluate_dense_clip)):
        if not is_complete(out, stage):
            continue
        folder, card = out / stage, Card.read(out / stage)
        training = {k.removeprefix("training "): v for k, v in card.figures.items() if k.startswith("training ")}
        calibration = list(World().draw_scenes(300, 8_000_000, "mixed"))
        if stage == "clip-vit":
            card = replace(card, use={**card.use, "dense": find_best_path(folder, calibration)})
        tell(f"{stage}: {finish_card(card, training, folder, calibration, examine)}")
    for stage, look in (("sam", evaluate_sam), ("dino", evaluate_dino)):
        if is_complete(out, stage):
            card = Card.read(out / stage)
            figures = {**card.figures, **look(out / stage)}
            replace(card, figures=figures).write(out / stage)
            tell(f"{stage}: {figures}")


def main() -> None:
    """Run all, one stage, or the exams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of all stages")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it, or of one stage")
    parser.add_argument("--stages", default=",".join(STAGES), help="which, by comma")
    parser.add_argument("--stage", help="do this one alone, in this process")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw images")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a few images of each, to try the way")
    parser.add_argument("--finish", action="store_true", help="examine what was trained")
    asked = parser.parse_args()
    if asked.finish:
        finish(asked.out)
    elif asked.stage:
        train_stage(asked.stage, asked.out, asked.minutes, asked.workers, asked.device, asked.small)
        if asked.stage == "archive":
            (asked.out / "archive" / "complete").touch()
    elif strange := {*asked.stages.split(",")} - {*STAGES, "unseen"}:
        parser.error(f"expected stages among {', '.join(STAGES)} and unseen, got {', '.join(sorted(strange))}")
    else:
        sys.exit(run(asked.out, asked.stages.split(","), asked.minutes, asked.workers, asked.device, asked.small))


if __name__ == "__main__":
    main()
