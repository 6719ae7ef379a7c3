"""What the frozen models cost, one by one: images a second, peak memory, and how near to the machine's limit they run.

    uv run python benchmarks/features.py --parts openai-rn50x64 sam-b --json features.json

Every part of the presets, at the size that the preset sets, sees photographs' 640 x 480 pixels one at a time, as Zip does on a
CPU: resizing and normalising included, reading files not.  Each part has the true architecture and random weights, which cost
the same as trained ones, and a process of its own, so that its peak memory is its own.  Arithmetic is counted, not estimated:
that of convolutions, matrix products and attention.  The limit beside it is what the best matrix product reached on the same
device, in the same number format and the same process, before or after; what is resized or added up takes time as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower, convert_weights_to_lp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

from annofree.features.clip_network import Tower, wrap_tower
from annofree.features.dino import Dino
from annofree.features.preprocessing import preprocess_image
from annofree.features.sam import FAMILIES
from annofree.features.sam_inputs import Frame
from annofree.hub.cards import Card, list_known_cards
from annofree.hub.presets import Role, list_presets
from annofree.methods.components import resolve_device
from annofree.ops.grids import fit_size
from annofree.structures import Image
from annofree.testing.architectures import build_hiera, build_sam_config
from annofree.testing.timing import Spread, measure_seconds

SIZE = (480, 640)  # px, of a common photograph in COCO
PRESETS = ("fast", "paper", "best")
WORK: dict[Role, str] = {"clip": "clues", "boundaries": "boundaries", "sam": "embedding", "dino": "keys"}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Job = Callable[[Image], Tensor]
"""An image to its features, (C, h, w)."""


@dataclass(frozen=True)
class Part:
    """A model in a role, as ``use`` sets it, and the presets that have it so."""

    model: str
    role: Role
    use: Mapping[str, Any]
    presets: tuple[str, ...]

    @property
    def card(self) -> Card:
        return list_known_cards()[self.model]


def all_parts() -> dict[str, Part]:
    """The parts of the presets, by the name of the model; raises SystemExit should two presets set one differently."""
    found: dict[str, Part] = {}
    for name in PRESETS:
        for role, card in list_presets()[name].find_cards().items():
            if role not in WORK:
                continue
            use, before = {**card.use, **list_presets()[name].use.get(role, {})}, found.get(card.name)
            if before and (before.role, before.use) != (role, use):
                raise SystemExit(f"expected {card.name} to be set alike in all presets, got another way in {name}")
            found[card.name] = Part(card.name, role, use, (*(before.presets if before else ()), name))
    return found


# the models

NARROW: dict[str, dict[str, Any]] = {
    "openai-rn50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "openai-rn50x64": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 8},
    "openai-vit-b-16": {"image_size": 64, "layers": 8, "width": 32, "head_width": 16, "patch_size": 16},
}
OPEN_CLIP = {"openai-rn50": "RN50", "openai-rn50x64": "RN50x64", "openai-vit-b-16": "ViT-B-16"}
SMALL = 64  # px of the sides that narrow models see


def filled(model: nn.Module) -> nn.Module:
    """Give what starts as all zeros little random values: else padding comes to denormal numbers, which take a CPU long."""
    for weights in model.requires_grad_(False).parameters():
        if not weights.any():
            weights.normal_(std=0.02)
    return model.eval()


def random_tower(part: Part, device: str, dtype: torch.dtype, small: bool) -> Tower:
    """The image tower of a CLIP, laid out in memory and cast as ``load_clip`` does it."""
    known: Any = open_clip.get_model_config(OPEN_CLIP[part.model])
    vision, width = (NARROW[part.model], 32) if small else (known["vision_cfg"], known["embed_dim"])
    cast = None if dtype == torch.float32 else dtype
    visual = _build_vision_tower(width, CLIPVisionCfg(**vision), bool(part.use["quick_gelu"]), cast)
    visual = filled(visual).to(device).to(memory_format=torch.channels_last)
    if cast is not None:
        convert_weights_to_lp(visual, dtype)
    return wrap_tower(visual, part.use.get("positions"))


def clip_job(part: Part, device: str, dtype: torch.dtype, small: bool) -> Job:
    """What ``Clip.encode_dense`` or ``Clip.boundaries`` does with one image."""
    tower, dense = random_tower(part, device, dtype, small), part.role == "clip"
    stride = tower.stride if dense else 16
    side = SMALL if small else part.use["dense_side" if dense else "boundary_side"]
    mean, std = (torch.tensor(part.card.preprocessing[k], device=device) for k in ("mean", "std"))

    def see(image: Image) -> Tensor:
        x = preprocess_image(image, fit_size(image.size, side, stride), mean, std)
        if dense:
            return F.normalize(tower.encode_dense(x, part.use["dense"])[0].float(), dim=0)
        return tower.extract_conv4(x)[0].float()

    return see


def sam_config(model: str, small: bool) -> Any:
    """The configuration of a SAM; the libraries' own defaults are SAM ViT-B and SAM 2.1 tiny."""
    if model == "sam-b":
        narrow = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "window_size": 2, "image_size": SMALL}
        return SamConfig(vision_config={**narrow, "global_attn_indexes": [1], "mlp_dim": 64} if small else {})
    if small:
        return Sam2Config(vision_config=build_hiera([16, 24, 32, 40], [1, 2, 2, 2], [1, 1, 2, 1], [8, 4, 8, 4], [3], SMALL))
    return build_sam_config(model)


def sam_job(part: Part, device: str, dtype: torch.dtype, small: bool) -> Job:
    """What ``Sam.embed`` does with one image."""
    config = sam_config(part.model, small)
    kind = "sam" if config.model_type == "sam" else "sam2"
    model: Any = filled({"sam": SamModel, "sam2": Sam2Model}[kind](config)).to(device, dtype)
    frame = Frame(SMALL if small else part.card.preprocessing["side"], FAMILIES[kind].fit)

    def see(image: Image) -> Tensor:
        found = model.get_image_embeddings(frame.preprocess(image, torch.device(device)).to(dtype))
        last: Tensor = found if isinstance(found, Tensor) else found[-1]
        return last[0]

    return see


def dino_job(part: Part, device: str, dtype: torch.dtype, small: bool) -> Job:
    """``Dino.extract_keys`` of one image, which keeps its size."""
    narrow: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2} if small else {}
    config = {"architecture": "vit_small_patch8_224", "model_args": narrow}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = filled(timm.create_model("vit_small_patch8_224", num_classes=0, **narrow))
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        dino = Dino(folder, device, card=part.card, dtype=dtype)
    return lambda image: dino.extract_keys([image])[0].values


JOBS: dict[Role, Callable[[Part, str, torch.dtype, bool], Job]] = {
    "clip": clip_job,
    "boundaries": clip_job,
    "sam": sam_job,
    "dino": dino_job,
}

# the clock


def matmul_limit(device: str, dtype: torch.dtype, small: bool) -> float:
    """The most arithmetic a second, in FLOP, of several square matrix products."""
    sides = (256,) if small else (4096, 8192) if device.startswith("cuda") else (1024, 2048)
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        out = a @ b  # warm
        fastest = min(measure_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device) for _ in range(5))  # type: ignore[misc]
        best = max(best, 2 * side**3 / fastest)
    return best


def peak_memory(device: str) -> int:
    """The most bytes held at once so far: on a GPU there, else by the whole process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Result:
    """The numbers of one part: ``shape`` (C, h, w) of the features, FLOP an image, FLOP a second, bytes."""

    model: str
    work: str
    presets: tuple[str, ...]
    shape: tuple[int, ...]
    flop: float
    seconds: tuple[float, ...]
    limit: float
    peak: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Result:
        """What ``asdict`` and JSON left of a result."""
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
        return cls(**fields)

    @property
    def spread(self) -> Spread:
        return Spread.of(self.seconds)

    @property
    def rate(self) -> float:
        """Images a second."""
        return 1 / self.spread.median

    @property
    def fraction(self) -> float:
        """Of the machine's limit."""
        return self.flop * self.rate / self.limit

    def as_dict(self) -> dict[str, Any]:
        """All of it, and what follows from it."""
        cells = self.shape[1] * self.shape[2] * self.rate
        derived = {"pictures_per_second": self.rate, "cells_per_second": cells, "fraction": self.fraction}
        return asdict(self) | {"spread": self.spread._asdict()} | derived


@torch.inference_mode()
def measure(part: Part, device: str, dtype: str, repeats: int, small: bool, seed: int) -> Result:
    """Build a part, count its arithmetic on a first image, and time it on that image again."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.manual_seed(seed)
    image = Image(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8))
    if small:
        image = Image(image.pixels[:SMALL, : SMALL + 32])
    job = JOBS[part.role](part, device, DTYPES[dtype], small)
    before = matmul_limit(device, DTYPES[dtype], small)
    with FlopCounterMode(display=False) as counter:
        shape = tuple(job(image).shape)
    times = tuple(measure_seconds(lambda: job(image), device) for _ in range(repeats))
    peak = peak_memory(device)
    limit = max(before, matmul_limit(device, DTYPES[dtype], small))
    return Result(part.model, WORK[part.role], part.presets, shape, float(counter.get_total_flops()), times, limit, peak)


def measured_alone(part: Part, asked: argparse.Namespace) -> Result:
    """Measure a part in a process of its own; raises SystemExit where that ends badly."""
    options = [f"--{k}={getattr(asked, k)}" for k in ("device", "dtype", "repeats", "seed")] + ["--small"] * asked.small
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", part.model, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"expected exit code 0 of {part.model}, got {done.returncode}")
    return Result.read(json.loads(done.stdout))


# the report


def header() -> str:
    columns = ("GFLOP", "seconds", "min", "max", "pictures/s", "GFLOP/s", "limit", "of limit", "peak GB")
    return f"{'part':28}{'features':>18}" + "".join(f"{c:>11}" for c in columns)


def row(found: Result) -> str:
    numbers = [f"{found.flop / 1e9:.1f}", *(f"{s:.3f}" for s in found.spread), f"{found.rate:.3f}"]
    numbers += [f"{found.flop * found.rate / 1e9:.1f}", f"{found.limit / 1e9:.1f}", f"{found.fraction:.1%}"]
    name, shape = f"{found.model} {found.work}", " x ".join(map(str, found.shape))
    return f"{name:28}{shape:>18}" + "".join(f"{n:>11}" for n in [*numbers, f"{found.peak / 1e9:.2f}"])


def machine(device: str) -> dict[str, Any]:
    cpu = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name() if device.startswith("cuda") else cpu
    return {"device": name, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "torch": torch.__version__}


def chosen(names: Sequence[str] | None) -> list[Part]:
    """The parts of some models, all unless named; raises SystemExit for a model that no preset has."""
    known = all_parts()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(f"expected parts among {', '.join(known)}, got {', '.join(unknown)}")
    return [known[name] for name in names or known]


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the frozen models of the presets cost.")
    parser.add_argument("--parts", nargs="+", metavar="MODEL", help=f"among {', '.join(all_parts())}; all unless named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="tf32 is for GPUs, and off unless named")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the image")
    parser.add_argument("--small", action="store_true", help="narrow models and a little image, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    parser.add_argument("--alone", metavar="MODEL", help="measure this part in this process and print its numbers as JSON")
    asked = parser.parse_args(arguments)
    asked.device = resolve_device(asked.device)
    if asked.dtype == "tf32" and not asked.device.startswith("cuda"):
        parser.error("tf32 is a number format of GPUs; expected --device cuda, or another --dtype")
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure parts, each in a process of its own, and print a table."""
    asked = arguments_of(arguments)
    if asked.alone:
        (part,) = chosen([asked.alone])
        print(json.dumps(asdict(measure(part, asked.device, asked.dtype, asked.repeats, asked.small, asked.seed))))
        return
    parts, here = chosen(asked.parts), machine(asked.device)
    print(f"{here['device']}, {here['threads']} threads, {asked.dtype}, one image at a time, {asked.repeats} repeats")
    print(header(), flush=True)
    results = []
    for part in parts:
        results.append(measured_alone(part, asked))
        print(row(results[-1]), flush=True)
    if asked.json:
        settings = {k: getattr(asked, k) for k in ("device", "dtype", "repeats", "seed", "small")}
        record = {"settings": settings, "machine": here, "parts": [r.as_dict() for r in results]}
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
