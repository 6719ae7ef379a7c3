"""ReCo: on the paper world, its co-segmentation and inference against slow twins, and what an archive may lack."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Background
from annofree.errors import ImageError, InputError
from annofree.hub.cards import BUNDLED
from annofree.methods.build import load
from annofree.methods.dense.reco import VARIANTS, Reco, RecoSettings
from annofree.methods.dense.reco_references import ReferenceArchive, ReferenceSettings, cut_square, open_references
from annofree.methods.registry import find_method
from annofree.ops.co_segmentation import compute_reference, find_seeds
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.retrieval.archive import Archive, Member
from annofree.structures import FeatureMap, Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeDino
from annofree.testing.paper_world import BACKGROUND, COLORS, NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS, check_known_pixels
from annofree.testing.tolerances import assert_close

ABSENT = ("zeppelin", "accordion")
PAPER = replace(VARIANTS["default"], references=ReferenceSettings(features="keys", side=64))


def write_paper_archive(folder: Path, names: Sequence[str] = (*NAMES, *ABSENT), count: int = 3) -> Path:
    """Some images of paper a name, each with a rectangle in a shade of the name's; empty paper for a name without a color."""
    folder.mkdir(parents=True)
    members, places = dict[str, tuple[Member, ...]](), dict[str, str]()
    for name in names:
        ids = [f"{name}-{i}.png" for i in range(count)]
        for i, id_ in enumerate(ids):
            pixels = np.full((64, 80, 3), BACKGROUND, np.uint8)
            if name in COLORS:
                pixels[8 * i + 8 : 8 * i + 32, 16 : 48 + 8 * i] = COLORS[name][i % 2]
            PIL.Image.fromarray(pixels).save(folder / id_)
            places[id_] = str(folder / id_)
        members[name] = tuple(Member(id_, 0.3) for id_ in ids)
    Archive(tuple(names), members, places, {"k": count}).write(folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paper_archive(tmp_path_factory.mktemp("reco") / "archive")


def make(folder: Path, settings: RecoSettings | str = PAPER, **parts: Any) -> Reco:
    return Reco(parts.get("clip", FakeClip()), parts.get("dino", FakeDino()), open_references(folder), settings)


class Random(FakeClip, FakeDino):
    """Cells of 8 px at random, of CLIP and of DINO on other grids; they follow from an image's pixels."""

    def draw(self, image: Image, seed: int, length: int, cell: int) -> FeatureMap:
        key = int(image.pixels.astype(np.int64).sum()) + seed
        grid = tuple(-(-n // cell) for n in image.size)
        values = torch.randn(length, *grid, generator=torch.Generator().manual_seed(key))
        return FeatureMap(values, image.size)

    def encode_dense(self, images: Sequence[Image], path: Any = None) -> list[FeatureMap]:
        maps = [self.draw(i, 1, 64, 16) for i in images]
        return [FeatureMap(F.normalize(m.values, dim=0), m.size) for m in maps]

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        seeds = [sum(map(ord, name)) for name in vocabulary.names]
        rows = [torch.randn(64, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return F.normalize(torch.stack(rows), dim=1)

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        return [self.draw(i, 2, 10, 8) for i in images]


# the paper world


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(archive: Path, check: Callable[[SemanticSegmenter], None]) -> None:
    method = make(archive)
    assert isinstance(method, SemanticSegmenter) and isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("check", CHECKS[2:], ids=lambda check: check.__name__)
def test_instances_conform_where_touching_ones_need_not_be_told_apart(
    archive: Path, check: Callable[[Segmenter], None]
) -> None:
    if check.__name__ not in ("check_absent_classes", "check_no_memory"):  # these look for every object of a scene
        check(make(archive))


def test_pamr_names_the_pixels(archive: Path) -> None:
    check_known_pixels(make(archive, replace(PAPER, refine="pamr")), min_iou=0.6)


def test_a_background_may_be_a_word_without_images(archive: Path) -> None:
    check_known_pixels(make(archive, replace(PAPER, background=Background())))


def test_as_released_every_pixel_has_a_name(archive: Path) -> None:
    settings = replace(PAPER, background=Background("none"))
    found = make(archive, settings).semantic(draw_paper_scenes()[0].image, NAMES)
    assert found.background is None and found.names == NAMES


# co-segmentation


def slow_seeds(features: Tensor, weights: Tensor, released: bool) -> list[int]:
    """One pair of cells at a time."""
    count, _, cells = features.shape
    flat = [(features[j, :, q].tolist(), float(weights[j, q])) for j in range(count) for q in range(cells)]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    seeds = []
    for i in range(count):
        means = []
        for p in range(cells):
            own, bests = features[i, :, p].tolist(), []
            for j in range(count):
                end = j * cells + (j + 1) * cells if released else (j + 1) * cells
                bests.append(max(cosine(own, other) * weight for other, weight in flat[j * cells : end]))
            means.append(sum(bests) / count)
        seeds.append(max(range(cells), key=lambda p: means[p]))
    return seeds


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_seeds_are_those_of_a_slow_twin(count: int, released: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(count)
    features, weights = torch.randn(count, 6, 7, generator=rng) * 3, torch.rand(count, 7, generator=rng)
    expected = slow_seeds(features, weights, released)
    for at_once in (2**25, 1):
        monkeypatch.setattr("annofree.ops.co_segmentation._AT_ONCE", at_once)
        assert find_seeds(features, weights, "released" if released else "image").tolist() == expected
    mean = torch.stack([features[i, :, seed] for i, seed in enumerate(expected)]).mean(0)
    assert_close(compute_reference(features, weights, "released" if released else "image"), mean / mean.norm())


def test_blocks_as_released_reach_into_the_images_behind() -> None:
    rng = torch.Generator().manual_seed(0)
    apart = 0
    for _ in range(20):
        features, weights = torch.randn(5, 4, 6, generator=rng), torch.rand(5, 6, generator=rng)
        apart += find_seeds(features, weights).tolist() != find_seeds(features, weights, "released").tolist()
    assert apart > 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected features \(n, D, P\) and weights \(n, P\), got \(2, 3, 4\) and \(2, 3\)"):
        find_seeds(torch.zeros(2, 3, 4), torch.zeros(2, 3))


def slow_reference(folder: Path, name: str, earlier: Sequence[Tensor], side: int) -> Tensor:
    """The reference of a name by the description: weights by language, less where an earlier context is."""
    model, held = Random(), Archive.read(folder)
    word, kept, weights = model.encode_text(Vocabulary.of([name]))[0], [], []
    for member in held.members[name]:
        square = cut_square(held.open(member.id), side)
        cells, told = model.extract_tokens([square])[0].values, model.encode_dense([square])[0].values
        cosine = torch.einsum("dhw,d->hw", told, word)[None, None]
        near = F.interpolate(cosine, cells.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        weight = torch.sigmoid(10 * near).flatten()
        for context in earlier:
            alike = torch.stack([torch.cosine_similarity(c, context, dim=0) for c in cells.flatten(1).T])
            weight = weight * (1 - torch.sigmoid(alike))
        kept.append(cells.flatten(1))
        weights.append(weight)
    seeds = slow_seeds(torch.stack(kept), torch.stack(weights), released=False)
    return F.normalize(torch.stack([cells[:, seed] for cells, seed in zip(kept, seeds, strict=True)]).mean(0), dim=0)


def test_references_and_label_maps_are_those_of_a_slow_twin(tmp_path: Path) -> None:
    names = ("car", "person", "tree", "apple")
    folder = write_paper_archive(tmp_path / "archive", names, count=4)
    settings = replace(PAPER, background=Background("none"), references=ReferenceSettings(side=32))
    method = Reco(Random(), Random(), open_references(folder), settings)
    tree = slow_reference(folder, "tree", [], 32)
    person = slow_reference(folder, "person", [tree], 32)
    twins = {"tree": tree, "person": person}
    twins |= {name: slow_reference(folder, name, [tree, person], 32) for name in ("car", "apple")}
    for name in names:
        assert_close(method.references.find_reference([name]), twins[name], depth="network")
    image = Image(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8), "noise")
    clip, dino = Random().encode_dense([image])[0].values, Random().extract_tokens([image])[0].values
    words = Random().encode_text(Vocabulary.of(list(names)))
    scores = []
    for word, name in zip(words, names, strict=True):
        told = torch.sigmoid(10 * torch.einsum("dhw,d->hw", clip, word))
        alike = torch.sigmoid(torch.cosine_similarity(dino, twins[name][:, None, None], dim=0))
        drawn = [F.interpolate(m[None, None], (40, 56), mode="bilinear", align_corners=False) for m in (told, alike)]
        scores.append((drawn[0] * drawn[1])[0, 0])
    assert (method.semantic(image, list(names)).labels == torch.stack(scores).argmax(0).numpy()).mean() > 0.999


# what is kept


def test_references_are_kept_beside_the_archive_and_made_anew_for_other_settings(tmp_path: Path) -> None:
    folder = write_paper_archive(tmp_path / "archive", ("car", "apple"))
    first = make(folder).references.find_reference(["car"])
    (file,) = (folder / "references").iterdir()
    before = file.stat().st_mtime_ns
    assert torch.equal(make(folder).references.find_reference(["car"]), first) and file.stat().st_mtime_ns == before
    make(folder, replace(PAPER, references=replace(PAPER.references, k=2))).references.find_reference(["car"])
    assert len(list((folder / "references").iterdir())) == 2
    file.write_bytes(b"torn")
    assert torch.equal(make(folder).references.find_reference(["car"]), first)


def test_a_kept_reference_needs_no_image(tmp_path: Path) -> None:
    folder = write_paper_archive(tmp_path / "archive", ("car",))
    make(folder).references.find_reference(["car"])
    for image in folder.glob("*.png"):
        image.unlink()
    assert make(folder).references.find_reference(["car"]).shape == (14,)
    with pytest.raises(ImageError, match=r"car-0\.png"):
        make(folder, replace(PAPER, references=replace(PAPER.references, k=2))).references.find_reference(["car"])


def test_where_nothing_can_be_written_references_are_in_memory(tmp_path: Path) -> None:
    folder = write_paper_archive(tmp_path / "archive", ("car",))
    (folder / "references").write_text("a file where a folder should be")
    method = make(folder)
    assert method.references.find_reference(["car"]) is method.references.find_reference(["car"])


# what an archive may lack


def test_a_name_that_the_archive_has_not_is_refused_in_one_line(archive: Path) -> None:
    for ask in (make(archive).remarks, lambda names: make(archive).semantic(draw_paper_scenes()[0].image, names)):
        with pytest.raises(InputError, match=r"unknown name of the archive 'appel'; did you mean 'apple'") as refusal:
            ask(["car", "appel"])
        assert "\n" not in str(refusal.value) and "annofree retrieve" in str(refusal.value)


def test_an_archive_of_one_image_is_refused(tmp_path: Path) -> None:
    folder = write_paper_archive(tmp_path / "archive", ("car",), count=1)
    with pytest.raises(InputError, match=r"expected 2 images of 'car' at least in .*, to find .*, got 1; retrieve"):
        make(folder).remarks(["car"])


def test_a_word_of_the_class_may_be_the_archives(archive: Path) -> None:
    assert open_references(archive).check_name(("automobile", "Car")) == "car"


def test_contexts_that_the_archive_has_not_are_told(archive: Path) -> None:
    (said,) = make(archive).remarks(NAMES)
    assert said.startswith("the archive has no images of sky, building, road, person, whose cells")


class KeysAlone(FakeDino):
    """A DINO that does not give its last tokens."""

    extract_tokens: Any = property()  # which nobody can read


def test_settings_that_do_not_serve_are_refused() -> None:
    with pytest.raises(InputError, match="expected k from 2 images and a side from 32 px, got 1 and 224"):
        ReferenceSettings(k=1)
    with pytest.raises(InputError, match="set features to 'keys'"):
        Reco(FakeClip(), KeysAlone(), ReferenceArchive(Path(), Archive(("a",), {"a": ()}, {}))).encode(
            [draw_paper_scenes()[0].image]
        )


# by name


def test_the_folder_of_an_archive_is_the_method(archive: Path, tmp_path: Path) -> None:
    assert find_method(str(archive)).tasks == ("instance", "semantic")
    shutil.copytree(archive, tmp_path / "archive")
    method = load(str(tmp_path / "archive"), models="tiny", device="cpu")
    assert method.provenance["archive"]["names"] == [*NAMES, *ABSENT]
    assert {m["name"] for m in method.provenance["models"]} <= set(BUNDLED)
    assert method.settings.references.features == "keys"  # as was chosen for the tiny models
    with pytest.raises(InputError, match=r"expected an archive of images for the method reco, got none; .*`annofree"):
        load("reco", models="tiny", device="cpu")
