"""CLIP-DIY, our batches beside the described official way, in one process, with one CLIP and on the same images.

    uv run python benchmarks/clip_diy.py --batch 8 --json clip_diy.json

Ours is ``ClipDiy`` with the settings ``official``: all windows of all images are cut and resized on the device and go through
CLIP together.  The obvious way is what the released code does: each of the 59 windows becomes a Pillow image, is resized by
Pillow to the side that CLIP reads, normalised, and goes through CLIP alone.  Both must give the same maps and labels but for
rounding, as a batch adds up in another order than one image: this is checked before anything is timed.  CLIP is a ViT-B/32
of the true size with random weights, so nothing is downloaded; the objectness is made up, and the same.  Ours is timed again
with CLIP's image tower in bfloat16, which processors that know it multiply several times faster; how near its embeddings are to
the exact ones is printed.  A second class list is timed too, on encodings that are kept: with its words encoded before, and
with words that the text tower has never read.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional as F

from annofree.features.tokenizer import Tokenizer
from annofree.methods.dense.clip_diy import VARIANTS, ClipDiy, ClipDiyEncoding
from annofree.ops.grids import resize_nearest
from annofree.protocols import DensePath
from annofree.structures import FeatureMap, Image, IntArray, Vocabulary
from annofree.testing.timing import Spread, format_spreads, measure_seconds
from annofree.testing.tolerances import assert_close, assert_same_pixels

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZE = (375, 500)  # px, of a common photograph in VOC


class RandomClip:
    """A CLIP of random weights, as far as CLIP-DIY asks; texts are kept once they are read."""

    def __init__(self, tiny: bool, device: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: Any = (_tiny() if tiny else CLIP(**open_clip.get_model_config("ViT-B-32"))).eval().to(device)
        self.side = int(self.model.visual.image_size[0])
        self.tokenizer, self.device = Tokenizer(self.model.context_length), device
        self.tower: Any = self.model.visual
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
        self.texts: dict[str, Tensor] = {}

    @property
    def dimension(self) -> int:
        return int(self.model.visual.output_dim)

    @property
    def paths(self) -> tuple[DensePath, ...]:
        return ()

    def with_prompts(self, templates: str) -> RandomClip:
        return self  # one prompt, that of the released code

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": "random", "tier": "none"}

    def remarks(self, vocabulary: Vocabulary) -> list[str]:
        return []

    @torch.inference_mode()
    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        new = [name for name in vocabulary.names if name not in self.texts]
        if new:
            tokens = self.tokenizer([f"a photo of a {name}" for name in new]).to(self.device)
            self.texts.update(zip(new, F.normalize(self.model.encode_text(tokens), dim=-1), strict=True))
        return torch.stack([self.texts[name] for name in vocabulary.names])

    def encode_null_text(self) -> Tensor:
        return torch.zeros(self.dimension, device=self.device)

    def halved(self) -> RandomClip:
        """The same weights, with the image tower in bfloat16."""
        twin = copy.copy(self)
        twin.tower = copy.deepcopy(self.tower).to(torch.bfloat16)
        return twin

    @torch.inference_mode()
    def encode_squares(self, pixels: Tensor) -> Tensor:
        x = ((pixels - self.mean) / self.std).to(next(self.tower.parameters()).dtype)
        return F.normalize(self.tower(x).float(), dim=-1)

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        raise NotImplementedError

    def compute_evidence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        raise NotImplementedError

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        raise NotImplementedError

    def encode_dense(self, images: Sequence[Image], path: Any = None) -> list[FeatureMap]:
        raise NotImplementedError

    def encode_boundaries(self, images: Sequence[Image]) -> list[FeatureMap]:
        raise NotImplementedError

    def encode_crops(self, image: Image, boxes: Any, *, pooled: bool) -> Tensor:
        raise NotImplementedError


def _tiny() -> CLIP:
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32)
    return CLIP(32, vision, CLIPTextCfg(context_length=16, width=32, heads=2, layers=2))


class MadeUp:
    """A smooth objectness that depends on the size of the image alone."""

    provenance: dict[str, Any] = {"objectness": "made up"}  # noqa: RUF012

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        coarse = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(3))
        return [F.interpolate(coarse, size=i.size, mode="bilinear", align_corners=False)[0, 0] for i in images]


def pictures(count: int, seed: int) -> list[Image]:
    """Make smooth colours with hard edges in them."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pixels = np.array(Picture.fromarray(small).resize(SIZE[::-1], Picture.Resampling.BICUBIC))
        for _ in range(4):
            y, x = rng.integers(0, SIZE[0] - 60), rng.integers(0, SIZE[1] - 80)
            pixels[y : y + 60, x : x + 80] = rng.integers(0, 256, 3)
        out.append(Image(pixels))
    return out


def names_of(count: int, first: str) -> list[str]:
    return [f"{first} {i}" for i in range(count)]


# the obvious way


@torch.inference_mode()
def obvious_maps(method: ClipDiy, clip: RandomClip, image: Image, where: Tensor, names: Sequence[str]) -> Tensor:
    """The fused maps (1 + K, 256, 256): one window at a time, through Pillow and through CLIP alone."""
    canvas = (method.draw_canvas(image) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    words, side = clip.encode_text(Vocabulary.of(["background", *names])), len(canvas)
    total = torch.zeros(len(words), side, side, device=clip.device)
    for window in (side, side // 2, side // 4):
        starts = range(0, side - window + 1, window // 2)
        seen = [obvious_feature(clip, canvas[y : y + window, x : x + window]) for y in starts for x in starts]
        grid = (words @ torch.stack(seen).T).view(1, -1, len(starts), len(starts))
        total += F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)[0]
    s = F.interpolate(where[None, None], size=(side, side), mode="bilinear", align_corners=False)[0, 0].to(clip.device)
    weight = torch.cat([(1 - s)[None], s.expand(len(names), -1, -1)])
    return total / 3 * weight


def obvious_feature(clip: RandomClip, crop: Any) -> Tensor:
    square = Picture.fromarray(crop).resize((clip.side, clip.side), Picture.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(square, np.float32) / 255).permute(2, 0, 1).to(clip.device)
    return F.normalize(clip.model.encode_image(((pixels - clip.mean) / clip.std)[None]), dim=-1)[0]


def obvious_labels(method: ClipDiy, clip: RandomClip, images: Sequence[Image], names: Sequence[str]) -> list[IntArray]:
    wheres = MadeUp().predict_maps(images)
    maps = (obvious_maps(method, clip, i, w, names) for i, w in zip(images, wheres, strict=True))
    return [resize_nearest(m.softmax(0).argmax(0), i.size).cpu().numpy() for m, i in zip(maps, images, strict=True)]


# ours


def our_method(clip: RandomClip) -> ClipDiy:
    return ClipDiy(clip, MadeUp(), replace(VARIANTS["official"], prompts=None, side=clip.side))


def our_labels(method: ClipDiy, encodings: Sequence[ClipDiyEncoding], names: Sequence[str]) -> list[IntArray]:
    return [np.asarray(method.semantic(e, names).labels, np.int64) for e in encodings]


class Agreement(NamedTuple):
    """How far apart the two ways are, once it is known to be little."""

    greatest_difference: float
    equal_pixels: float


def agreement(method: ClipDiy, clip: RandomClip, images: Sequence[Image], names: Sequence[str]) -> Agreement:
    """Run both ways once; raises SystemExit unless all values and, but for near ties, all labels are the same."""
    encodings, wheres = method.encode(images), MadeUp().predict_maps(images)
    apart, equal = 0.0, []
    for image, encoding, where in zip(images, encodings, wheres, strict=True):
        obvious, ours = obvious_maps(method, clip, image, where, names), method.compute_scores(encoding, names)
        apart = max(apart, float((ours - obvious).abs().max()))
        labels, said = resize_nearest(obvious.argmax(0), image.size).cpu().numpy(), method.semantic(encoding, names).labels
        equal.append(float((said == labels).mean()))
        try:
            assert_close(ours, obvious, depth="network")
            assert_same_pixels(said, labels)
        except AssertionError as problem:
            raise SystemExit(f"expected equal maps, but {problem}; nothing was timed") from None
    return Agreement(apart, min(equal))


def half_agreement(clip: RandomClip, images: Sequence[Image]) -> float:
    """The least cosine between the embeddings of crops in bfloat16 and in float32; raises SystemExit below 0.99."""
    exact, half = ([scale for e in our_method(c).encode(images) for scale in e.crops] for c in (clip, clip.halved()))
    least = min(float((a * b).sum(-1).min()) for a, b in zip(exact, half, strict=True))
    if least < 0.99:
        raise SystemExit(f"expected embeddings of crops in bfloat16 near the exact ones, got a cosine of {least:.3f}")
    return least


# the clock


def timings(clip: RandomClip, images: Sequence[Image], classes: int, repeats: int) -> dict[str, list[float]]:
    """Time each job once a repeat, in turn, so that a slow spell of the machine meets all of them."""
    method, first, second = our_method(clip), names_of(classes, "thing"), names_of(classes, "other")
    half = our_method(clip.halved())
    kept = method.encode(images)
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: our_labels(method, method.encode(images), first),
        "half": lambda: our_labels(half, half.encode(images), first),
        "obvious": lambda: obvious_labels(method, clip, images, first),
        "second": lambda: our_labels(method, kept, second),
        "unread": lambda: _unread(method, clip, kept, second),
    }
    for names in (first, second):
        our_labels(method, kept, names)  # words are read once, before the clock starts
    rounds = [{name: measure_seconds(job, clip.device) for name, job in jobs.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in jobs}


def _unread(method: ClipDiy, clip: RandomClip, kept: Sequence[ClipDiyEncoding], names: Sequence[str]) -> None:
    for name in names:
        clip.texts.pop(name)
    our_labels(method, kept, names)


LABELS = {
    "ours": "ours, first class list",
    "half": "ours in bfloat16, first class list",
    "obvious": "obvious, first class list",
    "second": "ours, second class list, words at hand",
    "unread": "ours, second class list, words never read",
}
RATIOS = {
    "batch": ("obvious", "ours", "obvious / ours"),
    "half": ("obvious", "half", "obvious / ours in bfloat16"),
    "second": ("ours", "second", "first list / second, words at hand"),
    "unread": ("ours", "unread", "first list / second, words never read"),
}
TARGETS = {"batch": "> 1", "half": ">= 3", "second": ">= 50", "unread": ""}


def ratios(times: dict[str, list[float]]) -> dict[str, Spread]:
    """Divide within each repeat."""
    return {
        name: Spread.of([a / b for a, b in zip(times[over], times[under], strict=True)])
        for name, (over, under, _) in RATIOS.items()
    }


def table(times: dict[str, list[float]], count: int) -> str:
    """Lay out seconds an image and ratios as plain text."""
    each = {LABELS[name]: Spread.of([v / count for v in values]) for name, values in times.items()}
    found, targets = ratios(times), {RATIOS[name][2]: TARGETS[name] for name in RATIOS}
    ratio = format_spreads("ratio", {RATIOS[name][2]: found[name] for name in RATIOS}, 46, 2, targets)
    return f"{format_spreads('seconds a picture', each, 46, 4)}\n\n{ratio}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check that both ways agree, time them, and print a table."""
    parser = argparse.ArgumentParser(description="CLIP-DIY: our batches beside one window at a time.")
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="a CLIP of two narrow layers, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    clip, images = RandomClip(asked.tiny, asked.device, asked.seed), pictures(asked.batch, asked.seed)
    print(f"{asked.batch} images of {SIZE}, {asked.classes} classes, {asked.device}, {torch.get_num_threads()} threads")
    same = agreement(our_method(clip), clip, images, names_of(asked.classes, "thing"))
    print(f"equal results: values {same.greatest_difference:.1e} apart at most, {same.equal_pixels:.2%} of labels equal")
    least = half_agreement(clip, images)
    print(f"embeddings of crops in bfloat16: cosine with the exact ones {least:.4f} or more\n")
    times = timings(clip, images, asked.classes, asked.repeats)
    print(table(times, asked.batch))
    if asked.json:
        record = {
            "settings": {k: getattr(asked, k) for k in ("batch", "classes", "repeats", "seed", "device", "tiny")},
            "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.machine()},
            "equal": same._asdict() | {"least_cosine_in_bfloat16": least},
            "seconds": {name: Spread.of(values)._asdict() | {"repeats": values} for name, values in times.items()},
            "ratios": {name: s._asdict() | {"target": TARGETS[name]} for name, s in ratios(times).items()},
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
