"""The true-size run: ``annofree segment`` with RN50x64, ViT-B/16 and SAM ViT-B as they are, but for weights, which are random.

    uv run python benchmarks/true_size.py photo.jpg another.jpg --classes "person, dog, bicycle"
    uv run python benchmarks/true_size.py photos --limit 50 --models fast --kill-after 600
    uv run python benchmarks/true_size.py photos --limit 50 --method clip_diy --models openai-vit-b-32+sam-b

Weights of the true architectures are written, in half precision and in the layouts of their publishers, into a Hugging Face
cache of their own; then the real command runs on it in a process of its own, without network.  What it finds means nothing,
since nothing was ever trained; that it comes to its end, how long it takes and how much memory it needs are as real as they
get.  The run fails where the command fails, leaves an image out, or needs more than 20 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save
from torch import nn
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel, SamConfig, SamModel, Tipsv2Model

from annofree.hub.cards import Card
from annofree.hub.presets import find_preset
from annofree.methods.registry import find_method
from annofree.testing.architectures import build_sam_config, build_tips_config, train_byte_tokenizer
from annofree.testing.hub_cache import trust_files, write_snapshot

LIMIT = 20e9  # bytes that the run may need at its peak
REVISION = "0" * 40
SCENES = Path(__file__).parents[1] / "examples" / "scenes"

# the architectures

OPEN_CLIP = {
    "openai-rn50": "RN50",
    "openai-rn101": "RN101",
    "openai-rn50x4": "RN50x4",
    "openai-rn50x16": "RN50x16",
    "openai-rn50x64": "RN50x64",
    "openai-vit-b-32": "ViT-B-32",
    "openai-vit-b-16": "ViT-B-16",
    "openai-vit-l-14": "ViT-L-14",
}
"""What open_clip calls a CLIP."""
NARROW_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
NARROW_RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
NARROW_VIT = {"image_size": 64, "layers": 8, "width": 32, "head_width": 16, "patch_size": 16}
NARROW_PROMPTS = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 8}
NARROW_DECODER = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
NARROW_SAM = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 16,
        "num_pos_feats": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
    },
    "prompt_encoder_config": NARROW_PROMPTS,
    "mask_decoder_config": NARROW_DECODER,
}


def clip_settings(name: str, small: bool) -> dict[str, Any]:
    """The ``model_cfg`` of a CLIP, or of one of the same kind with narrow towers."""
    if small:
        narrow = NARROW_RESNET if OPEN_CLIP[name].startswith("RN") else NARROW_VIT
        return {"embed_dim": 32, "vision_cfg": narrow, "text_cfg": NARROW_TEXT, "quick_gelu": True}
    return {**open_clip.get_model_config(OPEN_CLIP[name]), "quick_gelu": True}


def random_sam(name: str, small: bool) -> nn.Module:
    """A SAM, whose configurations are SAM ViT-B and SAM 2.1 tiny unless they say otherwise, or a narrow one."""
    if name == "sam-b":
        first: nn.Module = SamModel(SamConfig(**(NARROW_SAM if small else {})))
        return first
    if not small and name == "sam2.1-tiny":
        second: nn.Module = Sam2VideoModel(Sam2VideoConfig())
        return second
    if not small and name == "sam2.1-large":
        third: nn.Module = Sam2Model(build_sam_config(name))
        return third
    raise SystemExit(f"expected as SAM sam-b, or sam2.1-tiny or -large at true size, got {name}{' narrow' if small else ''}")


# the files


def files_of(card: Card, small: bool) -> dict[str, bytes]:
    """Random weights of a model, as the repository of its card would hold them."""
    if card.kind == "clip" and card.name in OPEN_CLIP:
        return clip_files(clip_settings(card.name, small), card.preprocessing)
    if card.family.endswith("Tipsv2Model"):
        return tips_files(card.name, small)
    if card.kind == "sam":
        return sam_files(random_sam(card.name, small), card.preprocessing)
    raise SystemExit(f"expected one of {', '.join(OPEN_CLIP)} as CLIP, got {card.name}")


def clip_files(settings: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> dict[str, bytes]:
    """open_clip's layout."""
    config = {"model_cfg": settings, "preprocess_cfg": dict(preprocessing)}
    return {
        "open_clip_config.json": json.dumps(config, indent=2).encode(),
        "open_clip_model.safetensors": halved(CLIP(**settings)),
    }


def tips_files(name: str, small: bool) -> dict[str, bytes]:
    """transformers' layout, with a tokenizer of bytes alone."""
    model = Tipsv2Model(build_tips_config(name, narrow=small))
    return {
        "config.json": model.config.to_json_string(use_diff=False).encode(),
        "model.safetensors": halved(model, ("temperature",)),
        "tokenizer.model": train_byte_tokenizer(),
    }


def sam_files(model: Any, preprocessing: Mapping[str, Any]) -> dict[str, bytes]:
    """transformers' layout."""
    second = model.config.model_type != "sam"
    side = model.config.prompt_encoder_config.image_size
    square = {"height": side, "width": side}
    frame: dict[str, Any] = {"size": square} if second else {"size": {"longest_edge": side}, "pad_size": square}
    processor = {
        "image_processor_type": "Sam2ImageProcessorFast" if second else "SamImageProcessor",
        **frame,
        **{f"do_{step}": True for step in ("resize", "rescale", "normalize")},
        "image_mean": preprocessing["mean"],
        "image_std": preprocessing["std"],
        "resample": 2,
    }
    return {
        "config.json": model.config.to_json_string(use_diff=False).encode(),
        "preprocessor_config.json": json.dumps(processor, indent=2).encode(),
        "model.safetensors": halved(model, () if second else ("shared_image_embedding.positional_embedding",)),
    }


def halved(model: nn.Module, twice: Sequence[str] = ()) -> bytes:
    """All weights in half precision as safetensors, but for those that are there ``twice``, under another name too.

    What starts as all zeros gets little random values: else padding comes to denormal numbers, which take a CPU long.
    """
    for weights in model.requires_grad_(False).parameters():
        if not weights.any():
            weights.normal_(std=0.02)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items() if k not in twice}
    return save({k: v.contiguous() for k, v in state.items()}, {"format": "pt"})


def lacking(cache: Path, spec: str, method: str = "zip") -> list[Card]:
    """The models of a preset or spec, as far as a method asks for them, that are not in a Hugging Face cache."""
    cards = [card for role, card in find_preset(spec).find_cards().items() if role in find_method(method).needs]
    return [c for c in cards if c.hub and not (cache / f"models--{c.hub.replace('/', '--')}" / "refs" / "main").exists()]


def write_weights(cache: Path, spec: str, small: bool, seed: int, method: str = "zip") -> None:
    """Put what is lacking into the cache."""
    for card in lacking(cache, spec, method):
        torch.manual_seed(seed)
        folder = write_snapshot(cache, card.hub, REVISION, files_of(card, small))
        trust(card, folder, cache.parent / "annofree")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"random weights of {card.name}: {size / 1e9:.3f} GB", flush=True)


def trust(card: Card, folder: Path, home: Path) -> None:
    """Write down that these files are meant, for they are not those of the card."""
    own = os.environ.get("ANNOFREE_HOME")
    os.environ["ANNOFREE_HOME"] = str(home)
    trust_files(card, folder)
    os.environ.pop("ANNOFREE_HOME")
    os.environ.update({} if own is None else {"ANNOFREE_HOME": own})


# the run


class Measured(NamedTuple):
    """Seconds on the clock and of the processor, and the most bytes of memory held at once, of one process."""

    seconds: float
    peak: int
    processor: float = 0.0


def measured(command: Sequence[str], env: Mapping[str, str]) -> Measured:
    """Run a command to its end; raises SystemExit where that is not a good one."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"expected exit code 0 of `{' '.join(command)}`, got {process.returncode}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(time.perf_counter() - start, peak, usage.ru_utime + usage.ru_stime)


def kill_once(command: Sequence[str], env: Mapping[str, str], out: Path, seconds: float) -> None:
    """Start a command, and kill it after some seconds, unless it is done before."""
    process = subprocess.Popen(command, env=env)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()
    manifest = out / "shards" / "manifest.jsonl"
    kept = len(manifest.read_text(encoding="utf-8").splitlines()) if manifest.is_file() else 0
    print(f"killed after {seconds:.0f} s, {kept} shards kept; the same command again:", flush=True)


def home_env(home: Path, threads: int | None) -> dict[str, str]:
    """An environment in which models come from ``home`` alone, and everything that is kept goes there."""
    own = {"HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": "1", "ANNOFREE_HOME": str(home / "annofree")}
    return {**os.environ, **own, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def annofree() -> str:
    """The command that comes with this Python."""
    found = shutil.which("annofree", path=sysconfig.get_path("scripts"))
    if found is None:
        raise SystemExit(f"expected the command annofree in {sysconfig.get_path('scripts')}; install the package first")
    return found


def answers(out: Path) -> tuple[int, int]:
    """How many images have an answer on disk, and how many instances they have."""
    if (out / "labels").is_dir():
        return len(list((out / "labels").rglob("*.png"))), 0
    found = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
    return len(found["images"]), len(found["annotations"])


def record_of(asked: argparse.Namespace, run: Measured, out: Path) -> dict[str, Any]:
    """The numbers of a run; raises SystemExit when an image is missing or memory went beyond the limit."""
    said = json.loads((out / "run.json").read_text(encoding="utf-8"))
    timings, (answered, instances) = said["timings"]["last_call"], answers(out)
    count = int(timings["images"])
    if said["failed"] or not count or count != answered:
        raise SystemExit(f"expected all images to be done, got {count} and as failed {said['failed']}")
    if run.peak > LIMIT:
        raise SystemExit(f"expected at most {LIMIT / 1e9:.0f} GB at the peak, got {run.peak / 1e9:.1f} GB")
    seconds = {part: timings[f"seconds_{part}"] for part in ("total", "load", "encode", "instances", "semantic")}
    names = seconds["instances"] + seconds["semantic"]
    parts = {"total": seconds["total"] - seconds["load"], "encode": seconds["encode"], "instances": names}
    return {
        "models": asked.models,
        "method": asked.method,
        "small": asked.small,
        "pictures": count,
        "instances": instances,
        "seconds_a_picture": {part: s / count for part, s in parts.items()},  # without loading
        "seconds_of_the_process": run.seconds,
        "processor_seconds": run.processor,
        "peak_bytes": run.peak,
        "machine": {"threads": asked.threads or torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[1]},
    }


def report(record: Mapping[str, Any]) -> str:
    """Tell the numbers in words."""
    parts, machine = record["seconds_a_picture"], record["machine"]
    rest = record["seconds_of_the_process"] - parts["total"] * record["pictures"]
    return "\n".join(
        [
            f"{record['method']} on {record['models']}{', narrow' if record['small'] else ''}, {record['pictures']} images",
            f"an image         {parts['total']:8.1f} s: {parts['encode']:.1f} s to encode, "
            f"{parts['instances']:.1f} s for the names",
            f"once              {rest:8.1f} s: imports, weights, checks",
            f"processor         {record['processor_seconds']:8.1f} s in all, on every thread",
            f"peak memory       {record['peak_bytes'] / 1e9:8.2f} GB, of {LIMIT / 1e9:.0f} GB allowed",
            f"threads           {machine['threads']:8d}   on {machine['cores']} cores; load {machine['load']:.1f}",
            f"instances         {record['instances']:8d}   the answers mean nothing: the weights are random; the run is real",
        ]
    )


def run(asked: argparse.Namespace, home: Path) -> None:
    """Write the weights in a process of its own, whose memory is its own, run the command, and tell how it went."""
    env, out = home_env(home, asked.threads), asked.out or home / "out"
    if lacking(home / "hub", asked.models, asked.method):
        again = [
            f"--method={asked.method}",
            f"--home={home.parent}",
            f"--models={asked.models}",
            f"--seed={asked.seed}",
            *["--small"] * asked.small,
        ]
        measured([sys.executable, str(Path(__file__).resolve()), "--only-weights", *again], env)
    images = [str(path) for path in asked.pictures or [SCENES]]
    options = ["--classes", asked.classes, "--models", asked.models, "--out", str(out), "--limit", str(asked.limit)]
    if asked.method == "clip_diy":
        options += ["--method", "clip_diy", "--task", "semantic", "--objectness", "none"]
    options += ["--precision", asked.precision] if asked.precision else []
    options += ["--batch-size", str(asked.batch_size)] if asked.batch_size else []
    command = [annofree(), "segment", *images, *options, "--device", asked.device]
    if asked.kill_after:
        kill_once(command, env, out, asked.kill_after)
    record = record_of(asked, measured(command, env), out)
    print("\n" + report(record))
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run annofree at true size and print what that took."""
    parser = argparse.ArgumentParser(description="annofree segment at true size, with random weights.")
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="images or folders; else examples/scenes")
    parser.add_argument("--classes", default="person, dog, bicycle, chair")
    parser.add_argument("--method", default="zip", choices=["zip", "clip_diy"], help="clip_diy goes without objectness")
    parser.add_argument("--models", default="paper", help="a preset, or models joined by +")
    parser.add_argument("--limit", type=int, default=3, help="pictures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", help="of the image encoders; else the command's own")
    parser.add_argument("--batch-size", type=int, help="images encoded at once; else the command's own")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the run")
    parser.add_argument("--home", type=Path, help="keep the weights there, for the next run; else they go with the run")
    parser.add_argument("--out", type=Path, help="keep the results there")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--small", action="store_true", help="narrow towers, to see that it runs")
    parser.add_argument("--kill-after", type=float, metavar="S", help="kill the run after so many seconds, and let it go on")
    parser.add_argument("--only-weights", action="store_true", help="write the weights and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        home = (asked.home or Path(temporary)).resolve() / f"{'narrow' if asked.small else 'true'}-{asked.seed}"
        if asked.only_weights:
            write_weights(home / "hub", asked.models, asked.small, asked.seed, asked.method)
        else:
            run(asked, home)


if __name__ == "__main__":
    main()
