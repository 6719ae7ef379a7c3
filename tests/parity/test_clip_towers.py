"""CLIP's towers against open_clip, which made them, and against slow twins of the dense paths.

True architectures with narrow widths and random weights, saved as the hub has them and loaded as a person would.  The
twins are written from the papers' formulas on the bare weights in float64: no attention kernel, no module, no shared code.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.factory import create_model
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.features.clip import Clip
from annofree.features.towers.resnet import ResNetTower
from annofree.features.towers.vit import VitTower
from annofree.hub.cards import Card
from annofree.ops.fixed_bilinear import resize_levels
from annofree.protocols import DensePath
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close

VISION: dict[str, dict[str, Any]] = {
    "rn50": {"image_size": 96, "layers": [3, 4, 6, 3], "width": 8, "patch_size": None},
    "rn101": {"image_size": 64, "layers": [3, 4, 23, 3], "width": 8, "patch_size": None},
    "rn50x4": {"image_size": 96, "layers": [4, 6, 10, 6], "width": 10, "patch_size": None},
    "vit-b-32": {"image_size": 96, "layers": 12, "width": 64, "head_width": 16, "patch_size": 32},
    "vit-b-16": {"image_size": 64, "layers": 12, "width": 64, "head_width": 16, "patch_size": 16},
    "vit-l-14": {"image_size": 56, "layers": 24, "width": 64, "head_width": 16, "patch_size": 14},
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
CASES = [*((name, True) for name in VISION), ("rn50", False), ("vit-b-32", False), ("vit-b-16", False), ("vit-l-14", False)]
RESNETS = ["rn50", "rn101", "rn50x4"]
VITS = [("vit-b-32", True), ("vit-b-16", True), ("vit-l-14", True), ("vit-b-16", False)]
SIZES = ["native", (128, 224)]

Folders = Callable[[str, bool], Path]


def config_of(name: str, quick: bool) -> dict[str, Any]:
    return {"embed_dim": 40, "quick_gelu": quick, "vision_cfg": VISION[name], "text_cfg": TEXT}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights of usual size; norms, biases, positions and the statistics of batch norms all different from their start."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("bn3.weight"):
            value.uniform_(0.2, 0.5, generator=generator)  # so that many residuals do not add up to attention of all or nothing
        elif name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(std=0.1, generator=generator)
        elif "embedding" in name:
            value.normal_(std=0.5, generator=generator)
        elif value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made: dict[tuple[str, bool], Path] = {}

    def folder(name: str, quick: bool) -> Path:
        if (name, quick) not in made:
            path = made[name, quick] = tmp_path_factory.mktemp(name)
            model = CLIP(**config_of(name, quick))
            randomise(model, len(made))
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path / "open_clip_model.safetensors")
            preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
            config = {"model_cfg": config_of(name, quick), "preprocess_cfg": preprocess}
            (path / "open_clip_config.json").write_text(json.dumps(config))
        return made[name, quick]

    return folder


CARD = Card("random", "open_clip", "S1", "Apache-2.0", "nothing", "none", files={})


@cache
def load(folder: Path, dtype: torch.dtype = torch.float32) -> Clip:
    return Clip(folder, card=CARD, dtype=dtype, use={"templates": "name"})


@cache
def open_clip_of(folder: Path) -> Any:
    """The same folder, read by open_clip itself."""
    return create_model(f"local-dir:{folder}").eval()


def pixels(clip: Clip, size: Any, batch: int = 2) -> Tensor:
    shape = (clip._tower.native,) * 2 if size == "native" else size
    return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(7))


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


# Against open_clip


@pytest.mark.parametrize(("name", "quick"), CASES)
def test_pictures_and_texts_are_as_open_clip_encodes_them(folders: Folders, name: str, quick: bool) -> None:
    clip, theirs = load(folders(name, quick)), open_clip_of(folders(name, quick))
    x, names = pixels(clip, "native"), ["a photo of a dog.", "traffic light"]
    with torch.inference_mode():
        assert_close(clip._tower.encode_image(x), theirs.encode_image(x), depth="network")
        assert_close(
            clip.encode_text(Vocabulary.of(names)), theirs.encode_text(clip._tokenizer(names), normalize=True), depth="network"
        )


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("size", SIZES)
def test_conv4_is_open_clips(folders: Folders, name: str, size: Any) -> None:
    clip = load(folders(name, True))
    v = copy.deepcopy(open_clip_of(folders(name, True)).visual).to(memory_format=torch.channels_last)
    x = pixels(clip, size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert_close(clip._tower.extract_conv4(x), v.layer3(v.layer2(v.layer1(v.stem(x)))), depth="network")


@pytest.mark.parametrize("name", VISION)
def test_whole_pictures_are_squashed_normalised_and_encoded(folders: Folders, name: str) -> None:
    clip, theirs = load(folders(name, True)), open_clip_of(folders(name, True))
    side = VISION[name]["image_size"]
    image = picture((side, side))
    x = torch.from_numpy(image.pixels).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
    with torch.inference_mode():
        expected = theirs.encode_image((x - mean) / std, normalize=True)
    assert_close(clip.encode_image([image]), expected, depth="network")
    assert_close(clip.encode_squares(x), expected, depth="network")


# Against slow twins


@dataclass
class Twin:
    """The bare weights of an image tower, in float64."""

    state: dict[str, Tensor]
    quick: bool
    eps: float = 1e-5

    @classmethod
    def of(cls, folder: Path, quick: bool, eps: float = 1e-5) -> "Twin":
        state = open_clip_of(folder).visual.state_dict()
        return cls({k: v.double() for k, v in state.items()}, quick, eps)

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        centerd = x - x.mean(-1, keepdim=True)
        return (
            centerd / (centerd.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self[f"{name}.weight"] + self[f"{name}.bias"]
        )

    def positions(self, name: str, grid: tuple[int, int], mode: str) -> Tensor:
        table = self[name]
        side = math.isqrt(len(table) - 1)
        if grid == (side, side):
            return table
        cells = table[1:].view(side, side, -1).permute(2, 0, 1)[None]
        resized = F.interpolate(cells, size=grid, mode=mode, align_corners=False)[0]
        return torch.cat([table[:1], resized.permute(1, 2, 0).flatten(0, 1)])


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for one image's tokens (T, C), head by head and token by token."""
    width = query.shape[1] // heads
    out = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for token in range(len(query)):
            scores = (query[token, part] * key[:, part]).sum(1) * width**-0.5
            weights = scores.exp() / scores.exp().sum()
            out[token, part] = (weights[:, None] * value[:, part]).sum(0)
    return out


def twin_vit(twin: Twin, x: Tensor, patch: int, path: DensePath) -> tuple[Tensor, Tensor]:
    """One image (3, H, W) to its projected tokens (1 + N, D) by a path, and to its last block's projected keys."""
    grid = x.shape[1] // patch, x.shape[2] // patch
    kernel = twin["conv1.weight"]
    cells = [
        (kernel * x[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]).sum((1, 2, 3)) for i, j in np.ndindex(grid)
    ]
    mode = "bilinear" if path == "surgery" else "bicubic"
    tokens = torch.stack([twin["class_embedding"], *cells]) + twin.positions("positional_embedding", grid, mode)
    tokens = twin.norm(tokens, "ln_pre")
    depth = 1 + max(int(name.split(".")[2]) for name in twin.state if name.startswith("transformer.resblocks"))
    new = tokens
    for number in range(depth):
        b = f"transformer.resblocks.{number}"
        y = twin.norm(tokens, f"{b}.ln_1")
        packed = y @ twin[f"{b}.attn.in_proj_weight"].T + twin[f"{b}.attn.in_proj_bias"]
        q, k, v = packed.chunk(3, 1)
        heads = y.shape[1] // 16
        before = tokens
        if number == depth - 6:
            new = tokens
        new = new + twin.linear(attended(v, v, v, heads), f"{b}.attn.out_proj") if path == "surgery" else new
        tokens = twin_mlp(twin, tokens + twin.linear(attended(q, k, v, heads), f"{b}.attn.out_proj"), b)
    value, keys = (twin.linear(t, f"{b}.attn.out_proj") for t in (v, k))
    last = {
        "value": value,
        "value+mlp": twin_mlp(twin, before + value, b),
        "surgery": torch.cat([tokens[:1], new[1:]]),
        "attention": tokens,
    }[path]
    return twin.norm(last, "ln_post") @ twin["proj"], keys


def twin_mlp(twin: Twin, tokens: Tensor, block: str) -> Tensor:
    hidden = twin.linear(twin.norm(tokens, f"{block}.ln_2"), f"{block}.mlp.c_fc")
    gelu = hidden * torch.sigmoid(1.702 * hidden) if twin.quick else hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return tokens + twin.linear(gelu, f"{block}.mlp.c_proj")


def twin_pool(twin: Twin, cells: Tensor, heads: int, path: DensePath) -> Tensor:
    """One image's layer4 (C, h, w) to its tokens (1 + h * w, D) by a path; the first, the mean's, is of no use to value."""
    grid = cells.shape[1], cells.shape[2]
    tokens = torch.stack([cells.mean((1, 2)), *(cells[:, i, j] for i, j in np.ndindex(grid))])
    if path == "value":
        return twin.linear(twin.linear(tokens, "attnpool.v_proj"), "attnpool.c_proj")
    tokens = tokens + twin.positions("attnpool.positional_embedding", grid, "bilinear" if path == "surgery" else "bicubic")
    names = ("v_proj",) * 3 if path == "surgery" else ("q_proj", "k_proj", "v_proj")
    q, k, v = (twin.linear(tokens, f"attnpool.{n}") for n in names)
    return twin.linear(attended(q, k, v, heads), "attnpool.c_proj")


def on_grid(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens[1:].T.reshape(-1, *like.shape[-2:])


@pytest.mark.parametrize("path", ["value", "value+mlp", "surgery", "attention"])
@pytest.mark.parametrize(("name", "quick"), VITS)
def test_dense_paths_of_vits_against_the_slow_twin(folders: Folders, name: str, quick: bool, path: DensePath) -> None:
    clip, twin = load(folders(name, quick)), Twin.of(folders(name, quick), quick)
    patch = VISION[name]["patch_size"]
    for size in ("native", (2 * patch, 5 * patch)) if quick else ("native",):
        (x,) = pixels(clip, size, batch=1)
        tokens, keys = twin_vit(twin, x.double(), patch, path)
        with torch.inference_mode():
            dense = clip._tower.encode_dense(x[None], path)[0]
            assert_close(dense, on_grid(tokens, dense), depth="network")
            if path != "surgery":  # whose positions are resized by another rule
                assert_close(clip._tower.extract_keys(x[None])[0], on_grid(keys, dense), depth="network")
            if path in ("surgery", "attention"):
                assert isinstance(clip._tower, VitTower)
                assert_close(clip._tower.extract_tokens(x[None], path)[0], tokens, depth="network")
            if path in ("surgery", "attention"):
                cells, first = clip._tower.encode_dense_and_class(x[None], path)
                assert torch.equal(cells[0], dense)
                assert_close(first[0], tokens[0], depth="network")


@pytest.mark.parametrize("path", ["value", "surgery", "attention"])
@pytest.mark.parametrize("name", RESNETS)
def test_dense_paths_of_resnets_against_the_slow_twin(folders: Folders, name: str, path: DensePath) -> None:
    clip, twin = load(folders(name, True)), Twin.of(folders(name, True), True)
    heads = VISION[name]["width"] * 32 // 64
    assert isinstance(clip._tower, ResNetTower)
    for size in ("native", (64, 160)):
        x = pixels(clip, size, batch=1)
        with torch.inference_mode():
            cells, dense = clip._tower.extract_layer4(x)[0], clip._tower.encode_dense(x, path)[0]
            tokens = twin_pool(twin, cells.double(), heads, path)
            assert_close(dense, on_grid(tokens, dense), depth="network")
            assert_close(clip._tower.encode_dense_and_class(x, path)[1][0], tokens[0], depth="network")


# MaskCLIP's released reading


@pytest.mark.parametrize("path", ["value", "value+mlp"])
def test_the_released_reading_of_a_vit_is_the_slow_twin_with_gelu_and_another_eps(folders: Folders, path: DensePath) -> None:
    folder = folders("vit-b-16", True)
    clip = load(folder)
    (x,) = pixels(clip, (32, 80), batch=1)
    tokens, _ = twin_vit(Twin.of(folder, quick=False, eps=1e-6), x.double() * 1e-2, 16, path)
    with torch.inference_mode():
        before = clip._tower.encode_dense(x[None] * 1e-2, path)
        dense = clip.with_released_reading()._tower.encode_dense(x[None] * 1e-2, path)[0]
        assert torch.equal(clip._tower.encode_dense(x[None] * 1e-2, path), before), "the model itself stays as it is"
    assert_close(dense, on_grid(tokens, dense), depth="network")
    assert not torch.allclose(dense, before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stride"), [("vit-b-32", 32), ("resnet", 32)])
def test_the_released_reading_resizes_normalizes_and_pads_as_released(folders: Folders, name: str, stride: int) -> None:
    clip = load(folders(RESNETS[0] if name == "resnet" else name, True)).with_released_reading()
    image = picture((30, 41))
    levels = resize_levels(image.pixels, (512, 700)).astype(np.float64)
    x = np.zeros((3, 512, 704))
    for c, mean, std in zip(range(3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        x[c, :, :700] = (levels[..., c] / 255 - mean) / std
    with torch.inference_mode():
        expected = clip._tower.encode_dense(torch.from_numpy(x).float()[None], "value")[0]
    (found,) = clip.encode_dense([image], "value")
    assert expected.shape[1:] == (512 // stride, 704 // stride)
    assert_close(found.values, F.normalize(expected, dim=0), depth="network")
    assert found.window is None, "cells are stretched over the image, padding too"


def test_the_released_reading_shares_all_weights(folders: Folders) -> None:
    clip = load(folders("vit-b-32", True))
    mine, theirs = (dict(c._tower.visual.named_parameters()) for c in (clip, clip.with_released_reading()))
    assert mine.keys() == theirs.keys() and all(mine[k] is theirs[k] for k in mine)


@pytest.mark.parametrize("name", VISION)
@pytest.mark.parametrize("path", ["value", "surgery", "attention"])
def test_maps_of_pictures_are_the_paths_at_unit_length(folders: Folders, name: str, path: DensePath) -> None:
    clip = load(folders(name, True))
    side, stride = clip._tower.native, clip._tower.stride
    image = picture((side, side + 2 * stride))
    (found,) = clip.encode_dense([image], path)
    x = torch.from_numpy(image.pixels).permute(2, 0, 1)[None] / 255
    x = (x - clip._mean.view(3, 1, 1)) / clip._std.view(3, 1, 1)
    with torch.inference_mode():
        assert_close(found.values, F.normalize(clip._tower.encode_dense(x, path)[0], dim=0), depth="network")
    assert found.size == image.size and found.values.dtype == torch.float32


# Sizes, batches, precision


@pytest.mark.parametrize("name", VISION)
def test_many_pictures_are_as_each_alone_and_leave_no_trace(folders: Folders, name: str) -> None:
    clip = load(folders(name, True))
    before = {k: v.clone() for k, v in clip._model.state_dict().items()}
    images = [picture(size, seed) for seed, size in enumerate([(64, 64), (50, 97), (64, 64), (97, 50), (50, 97)])]
    whole, dense = clip.encode_image(images), clip.encode_dense(images)
    for image, w, d in zip(images, whole, dense, strict=True):
        assert_close(w, clip.encode_image([image])[0], depth="network")
        assert_close(d.values, clip.encode_dense([image])[0].values, depth="network")
    after = clip._model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


LEAST_COSINE = {torch.bfloat16: 0.9995, torch.float16: 0.99999}
"""What half precision may turn a unit feature away from its float32 self, on these random towers of full depth.

Seen were 2.3e-4 and 3.5e-6 below 1, as much with AVX-512 and AVX2 as without.
"""


@pytest.mark.parametrize("dtype", LEAST_COSINE, ids=str)
@pytest.mark.parametrize("name", VISION)
def test_half_precision_stays_near(folders: Folders, name: str, dtype: torch.dtype) -> None:
    full, half = load(folders(name, True)), load(folders(name, True), dtype)
    image, words = picture((70, 110)), Vocabulary.of("dog, cat")
    for ours, theirs in [
        (half.encode_image([image])[0], full.encode_image([image])[0]),
        (half.encode_dense([image])[0].values, full.encode_dense([image])[0].values),
        (half.encode_dense([image], "attention")[0].values, full.encode_dense([image], "attention")[0].values),
    ]:
        assert ours.dtype == torch.float32
        assert float(F.cosine_similarity(ours, theirs, dim=0).min()) > LEAST_COSINE[dtype]
    assert torch.equal(half.encode_text(words), full.encode_text(words)), "the text tower stays in float32"
    assert half.provenance["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", ["rn50", "vit-b-16"])
@pytest.mark.parametrize("dtype", LEAST_COSINE, ids=str)
def test_half_precision_is_open_clips(folders: Folders, name: str, dtype: torch.dtype) -> None:
    clip = load(folders(name, True), dtype)
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    theirs = create_model(f"local-dir:{folders(name, True)}", precision=precision).eval()
    x = pixels(clip, "native")
    with torch.inference_mode():
        ours, reference = clip._tower.encode_image(x), theirs.encode_image(x.to(dtype))
    assert ours.dtype == reference.dtype == dtype
    assert float(F.cosine_similarity(ours.float(), reference.float()).min()) > LEAST_COSINE[dtype]
