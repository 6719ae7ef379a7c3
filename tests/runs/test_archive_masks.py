"""Masks of an archive: what they are, what their quality means, and that a kill or a bad image costs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from annofree.errors import MissingError
from annofree.features.saliency import TokenCutMap
from annofree.features.selfmask import Salient, SelfMask
from annofree.ops.rle import decode_rle
from annofree.retrieval.archive import Archive, MaskWriter, Member, read_masks
from annofree.runs.archive_masks import Refine, mask_archive, measure_contrast, refine_mask
from annofree.structures import BoolArray, Image
from annofree.testing.fakes import FakeDino, FakeObjectness
from annofree.testing.paper_world import BACKGROUND
from annofree.testing.tolerances import assert_close


def image(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    pixels = np.full((*size, 3), BACKGROUND, np.uint8)
    y, x = np.random.default_rng(seed).integers(2, 20, 2)
    pixels[y : y + 12 + seed, x : x + 16] = 200, 30, 30
    return pixels


def written(folder: Path, count: int = 5) -> Archive:
    """An archive of two names that share an image."""
    folder.mkdir(parents=True)
    ids = [f"{seed}.png" for seed in range(count)]
    for seed, name in enumerate(ids):
        PIL.Image.fromarray(image(seed)).save(folder / name)
    members = {"cup": tuple(Member(i, 0.5) for i in ids[:3]), "tie/car": tuple(Member(i, 0.4) for i in ids[2:])}
    archive = Archive(("cup", "tie/car"), members, {i: str(folder / i) for i in ids}, {})
    archive.write(folder)
    return archive


def decoded(folder: Path) -> dict[str, BoolArray]:
    rles = {name: {**m.rle, "counts": m.rle["counts"].encode("ascii")} for name, m in read_masks(folder).items()}
    return {name: decode_rle(rle) for name, rle in rles.items()}


def test_each_picture_has_one_mask_as_the_source_draws_it(tmp_path: Path) -> None:
    archive = written(tmp_path / "a")
    said: list[tuple[int, int]] = []
    with MaskWriter(tmp_path / "a") as writer:
        assert mask_archive(archive, writer, FakeObjectness(), batch=2, on_progress=lambda *a: said.append(a)) == {}
    found = decoded(tmp_path / "a")
    assert list(found) == list(archive.ids) and said == [(0, 5), (2, 5), (4, 5), (5, 5)]
    for seed, mask in enumerate(found.values()):
        assert np.array_equal(mask, image(seed)[..., 0] == 200)
    assert {m.quality for m in read_masks(tmp_path / "a").values()} == {1.0}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, batch: int) -> None:
    class Killed(FakeObjectness):
        calls = 0

        def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
            Killed.calls += 1
            if Killed.calls > 1:
                raise KeyboardInterrupt
            return super().predict_maps(images)

    whole, cut = written(tmp_path / "whole"), written(tmp_path / "cut")
    with MaskWriter(tmp_path / "whole") as writer:
        mask_archive(whole, writer, FakeObjectness(), batch=2)
    with MaskWriter(tmp_path / "cut") as writer, pytest.raises(KeyboardInterrupt):
        mask_archive(cut, writer, Killed(), batch=batch)
    with (tmp_path / "cut" / "masks.jsonl").open("a") as file:
        file.write('{"id": "4.png", "size": [48')  # a line cut short
    assert len(read_masks(tmp_path / "cut")) == batch
    with MaskWriter(tmp_path / "cut") as writer:
        mask_archive(cut, writer, FakeObjectness(), batch=batch)
    # in batches of any size, for maps of paint are 0 and 1
    assert (tmp_path / "cut" / "masks.jsonl").read_bytes() == (tmp_path / "whole" / "masks.jsonl").read_bytes()


def test_bad_pictures_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    archive = written(tmp_path / "a")
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    (tmp_path / "a" / "3.png").unlink()
    told: list[str] = []
    with MaskWriter(tmp_path / "a") as writer:
        failed = mask_archive(archive, writer, FakeObjectness(), on_failure=lambda name, why: told.append(name))
        assert list(failed) == told == ["1.png", "3.png"] and all(name in why for name, why in failed.items())
        assert list(read_masks(tmp_path / "a")) == ["0.png", "2.png", "4.png"]
        PIL.Image.fromarray(image(1)).save(tmp_path / "a" / "1.png")
        assert list(mask_archive(archive, writer, FakeObjectness())) == ["3.png"], "the next run tries them again"


def test_a_source_that_fails_on_one_picture_fails_on_that_alone(tmp_path: Path) -> None:
    class Picky(FakeObjectness):
        def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
            if any(i.id == "2.png" for i in images):
                raise RuntimeError("out of memory")
            return super().predict_maps(images)

    class Missing(FakeObjectness):
        def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
            raise MissingError("no weights")

    archive = written(tmp_path / "a")
    with MaskWriter(tmp_path / "a") as writer:
        with pytest.raises(MissingError):
            mask_archive(archive, writer, Missing())
        assert mask_archive(archive, writer, Picky()) == {"2.png": "2.png: out of memory"}
        assert len(writer.done) == 4


class Planted(SelfMask):
    """A SelfMask without weights."""

    provenance: dict[str, Any] = {"objectness": "planted"}  # noqa: RUF012

    def __init__(self) -> None:
        pass

    def predict_masks(self, images: Sequence[Image], *, every: bool = False) -> list[Salient]:
        return [Salient(torch.from_numpy(i.pixels[..., 1] == 30).float() * (i.id != "0.png"), 0.75) for i in images]


def test_quality_is_selfmask_s_objectness_and_nothing_for_an_empty_mask(tmp_path: Path) -> None:
    with MaskWriter(tmp_path / "a") as writer:
        mask_archive(written(tmp_path / "b"), writer, Planted())
    assert [m.quality for m in read_masks(tmp_path / "a").values()] == [0.0, 0.75, 0.75, 0.75, 0.75]
    assert not decoded(tmp_path / "a")["0.png"].any()


def test_quality_of_a_map_is_its_contrast(tmp_path: Path) -> None:
    class Soft(FakeObjectness):
        def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
            return [0.2 + 0.6 * m for m in super().predict_maps(images)]

    with MaskWriter(tmp_path / "a") as writer:
        mask_archive(written(tmp_path / "b"), writer, Soft())
    assert_close([m.quality for m in read_masks(tmp_path / "a").values()], [0.6] * 5, dtype=torch.float32)
    everything, nothing = torch.ones(3, 3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)
    assert measure_contrast(torch.rand(3, 3), everything) == measure_contrast(torch.rand(3, 3), nothing) == 0


def test_tokencut_cuts_at_the_mean_of_its_map(tmp_path: Path) -> None:
    archive = written(tmp_path / "b", 1)
    source = TokenCutMap(FakeDino())
    with MaskWriter(tmp_path / "a") as writer:
        mask_archive(archive, writer, source)
    (soft,) = source.predict_maps([archive.open("0.png")])
    assert np.array_equal(decoded(tmp_path / "a")["0.png"], (soft > soft.mean()).numpy())


def test_refinement_ends_at_edges_and_never_takes_a_mask_away() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    right = torch.zeros(64, 64, dtype=torch.bool)
    right[:, 32:] = True
    rough = right.clone()
    rough[:, 30:32] = True
    rough[20:23, 50:53] = False
    assert torch.equal(refine_mask(Image(pixels), rough), right)
    speck = torch.zeros(64, 64, dtype=torch.bool)
    speck[5, 5] = True
    assert torch.equal(refine_mask(Image(pixels), speck), speck)


@pytest.mark.parametrize("refine", ["none", "pamr"])
def test_refinement_is_used_when_asked_for(tmp_path: Path, refine: Refine) -> None:
    class Late(FakeObjectness):
        def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
            return [torch.roll(m, 1, 1) for m in super().predict_maps(images)]

    archive = written(tmp_path / "b", 1)
    with MaskWriter(tmp_path / "a") as writer:
        mask_archive(archive, writer, Late(), refine=refine)
    (mask,) = decoded(tmp_path / "a").values()
    truth = image(0)[..., 0] == 200
    assert bool((mask == truth).all()) == (refine == "pamr")
