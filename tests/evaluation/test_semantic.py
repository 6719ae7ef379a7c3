import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from annofree.datasets.benchmarks.png_folder import open_png_folder
from annofree.datasets.benchmarks.semantic import SemanticDataset, SemanticSample
from annofree.datasets.names import VOC_NAMES
from annofree.errors import InputError
from annofree.evaluation.metrics import confusion as confusion_module
from annofree.evaluation.metrics.confusion import Confusion
from annofree.evaluation.metrics.semantic import SemanticScorer, SemanticScores
from annofree.evaluation.predict_semantic import align_labels, score_label_maps, score_method
from annofree.evaluation.protocols.semantic import PROTOCOLS, find_semantic_protocol, resize_labels, resize_shorter_side
from annofree.evaluation.reports.semantic import as_class_table, as_semantic_table, draw_confusion
from annofree.formats.label_maps import ClassList, write_label_map
from annofree.protocols import SemanticSegmenter
from annofree.structures import VOID, Image, LabelMap, Vocabulary
from annofree.testing.tolerances import assert_close

K = 6
Maps = npt.NDArray[np.int32]
NAMES = ("background", "dog", "cat", "bird", "cow", "sheep")


def maps(size: tuple[int, int], seed: int, low: int = VOID) -> tuple[Maps, Maps]:
    """Truth of classes 0 to 3 with void, prediction of classes 0 to 2 and 4: 3 is missed, 4 is never true, 5 is nowhere."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(VOID, 4, size, np.int32)
    predicted = np.where(generator.random(size) < 0.4, truth, generator.choice([low, 0, 1, 2, 4], size)).astype(np.int32)
    predicted[predicted == 3] = 4
    return truth, predicted


def scored(*pairs: tuple[Maps, Maps], background: int | None = 0) -> SemanticScorer:
    scorer = SemanticScorer(NAMES, background)
    for truth, predicted in pairs:
        scorer.add(truth, predicted)
    return scorer


def no_progress(done: int, total: int) -> None:
    assert 0 <= done <= total


# the matrix and what follows from it


@pytest.mark.parametrize("seed", range(3))
def test_the_matrix_is_scikit_learns(seed: int) -> None:
    truth, predicted = maps((30, 40), seed)
    matrix = Confusion.of(K)
    matrix.add(truth, predicted)
    kept = truth != VOID
    labels = [*range(K), VOID]
    theirs = confusion_matrix(truth[kept], predicted[kept], labels=labels)
    assert (matrix.counts == theirs[:K, :K]).all() and (matrix.unnamed == theirs[:K, K]).all()
    assert matrix.void == (~kept).sum() and matrix.unnamed.sum() > 0


def test_scores_are_scikit_learns() -> None:
    truth, predicted = maps((50, 60), seed=1, low=0)
    predicted[predicted == VOID] = 0
    scores = scored((truth, predicted)).compute_scores()
    kept = truth != VOID
    t, p = truth[kept], predicted[kept]
    seen = sorted({*t.tolist(), *p.tolist()})
    assert seen == [0, 1, 2, 3, 4]
    each = jaccard_score(t, p, labels=seen, average=None)
    assert_close([scores.iou[NAMES[k]] for k in seen], each)
    assert_close(scores.mean_iou, each.mean())
    assert_close(scores.mean_iou_things, each[1:].mean())
    assert_close(scores.pixel_accuracy, accuracy_score(t, p))
    assert_close(scores.mean_accuracy, recall_score(t, p, labels=[0, 1, 2, 3], average="macro"))
    assert_close(scores.weighted_iou, jaccard_score(t, p, average="weighted"))


def test_absent_classes_are_left_out_or_count_0_and_false_names_always_do() -> None:
    scorer = scored(maps((50, 60), seed=1))
    skip, zero = scorer.compute_scores(), scorer.compute_scores(absent="zero")
    assert skip.iou["bird"] == 0 and skip.iou["cow"] == 0 and skip.iou["sheep"] is None
    assert skip.accuracy["bird"] == 0 and skip.accuracy["cow"] is None
    assert skip.mean_iou is not None and skip.mean_iou_things is not None
    assert_close([zero.mean_iou, zero.mean_iou_things], [skip.mean_iou * 5 / 6, skip.mean_iou_things * 4 / 5])
    assert skip.zero_rate == 1 / 4 and skip.n_true_classes == 4
    assert (skip.absent, zero.absent) == ("skip", "zero")
    assert skip.iou == zero.iou  # what a class has does not depend on how the mean is taken


def test_a_labelled_pixel_without_a_name_is_a_miss_and_nobodys_false_alarm() -> None:
    truth = np.array([[1, 1, 2, 2]], np.int32)
    scores = scored((truth, np.array([[1, VOID, 2, 2]], np.int32))).compute_scores()
    assert scores.iou["dog"] == 0.5 and scores.iou["cat"] == 1 and scores.iou["background"] is None
    assert scores.pixel_accuracy == 0.75


def test_void_pixels_count_nowhere() -> None:
    truth, predicted = maps((20, 20), seed=3)
    other = predicted.copy()
    other[truth == VOID] = 5
    assert scored((truth, predicted)).compute_scores() == scored((truth, other)).compute_scores()


def test_nothing_to_score() -> None:
    empty = np.full((3, 3), VOID, np.int32)
    for scorer in (SemanticScorer(NAMES, 0), scored((empty, np.zeros((3, 3), np.int32)))):
        scores = scorer.compute_scores()
        assert scores.mean_iou is None and scores.pixel_accuracy is None and scores.per_image_iou is None
        assert scores.zero_rate is None and scores.by_size == {"S": None, "MS": None, "ML": None, "L": None}
        assert json.loads(json.dumps(scores.to_json_dict(), allow_nan=False))["iou"]["dog"] is None


LABELS = arrays.arrays(np.int32, st.tuples(st.just(2), st.integers(1, 7), st.integers(1, 7)), elements=st.integers(VOID, K - 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=5), st.integers(0, 5))
def test_streamed_merged_and_flat_are_one(pairs: list[Maps], cut: int) -> None:
    streamed, flat = scored(*((p[0], p[1]) for p in pairs)), Confusion.of(K)
    flat.add(np.concatenate([p[0].ravel() for p in pairs]), np.concatenate([p[1].ravel() for p in pairs]))
    merged = scored(*((p[0], p[1]) for p in pairs[:cut]))
    merged += scored(*((p[0], p[1]) for p in pairs[cut:]))
    for matrix in (streamed.confusion, merged.confusion):
        assert (matrix.counts == flat.counts).all() and (matrix.unnamed == flat.unnamed).all() and matrix.void == flat.void
    ours, theirs = streamed.compute_scores().to_json_dict(), merged.compute_scores().to_json_dict()
    for key, value in ours.items():
        assert theirs[key] == (pytest.approx(value) if isinstance(value, float | dict) else value), key


@settings(max_examples=60, deadline=None)
@given(LABELS)
def test_bounds_and_perfection(pair: Maps) -> None:
    truth, predicted = pair
    scores = scored((truth, predicted)).compute_scores()
    for values in (scores.iou, scores.accuracy, scores.iou_per_image):
        assert all(v is None or 0 <= v <= 1 for v in values.values())
    assert all(v is None or v <= (scores.accuracy[k] or 0) + 1e-12 for k, v in scores.iou.items())
    total = int((truth != VOID).sum())
    assert (scores.n_pixels, scores.n_void) == (total, truth.size - total)
    if total:
        perfect = scored((truth, truth)).compute_scores()
        assert perfect.mean_iou == perfect.pixel_accuracy == perfect.per_image_iou == 1 and perfect.zero_rate == 0


@settings(max_examples=30, deadline=None)
@given(LABELS, st.permutations(range(K)))
def test_the_order_of_the_names_does_not_matter(pair: Maps, order: list[int]) -> None:
    lookup = np.array([*order, VOID], np.int32)
    before = scored((pair[0], pair[1]), background=None).compute_scores()
    after = scored((lookup[pair[0]], lookup[pair[1]]), background=None).compute_scores()
    assert [before.iou[NAMES[k]] for k in range(K)] == [after.iou[NAMES[order[k]]] for k in range(K)]
    assert before.mean_iou == pytest.approx(after.mean_iou)


def test_the_mean_over_pictures_is_another_measure() -> None:
    """Slow twin: IoU of each class in each image, averaged within images and then over them."""
    pairs = [maps((9, 11), seed) for seed in range(4)]
    scores = scored(*pairs).compute_scores()
    of_class: list[list[float]] = [[] for _ in NAMES]
    means = []
    for truth, predicted in pairs:
        here = []
        for k in range(K):
            t, p = truth == k, (predicted == k) & (truth != VOID)
            if (t | p).any():
                here.append(float((t & p).sum() / (t | p).sum()))
                of_class[k].append(here[-1])
        means.append(np.mean(here))
    assert_close(scores.per_image_iou, np.mean(means))
    for name, values in zip(NAMES, of_class, strict=True):
        assert scores.iou_per_image[name] == (pytest.approx(np.mean(values)) if values else None)
    assert scores.per_image_iou != scores.mean_iou


def test_scores_by_size_are_imagenet_ss() -> None:
    """Slow twin: of each image, the classes of one size and the background, pooled pixel by pixel."""
    generator = np.random.default_rng(5)
    pairs = []
    for share in (3, 5, 6, 20, 25, 26, 50, 51, 90):
        truth = np.zeros((20, 20), np.int32)
        truth.flat[: 4 * share] = generator.integers(1, K)
        truth[-1, -8:] = generator.choice([VOID, 1, 2])  # a second, small class, or void
        predicted = np.where(generator.random((20, 20)) < 0.6, truth, generator.integers(0, K, (20, 20))).astype(np.int32)
        pairs.append((truth, predicted))
    scores = scored(*pairs).compute_scores()
    for name, low, high in (("S", 0, 5), ("MS", 5, 25), ("ML", 25, 50), ("L", 50, 100)):
        pooled = Confusion.of(K)
        for truth, predicted in pairs:
            labeled = np.count_nonzero(truth != VOID)
            percent = {k: math.ceil(100 * np.count_nonzero(truth == k) / labeled) for k in range(1, K)}
            chosen = [k for k, p in percent.items() if low < p <= high]
            if chosen:
                kept = np.isin(truth, [0, *chosen])
                pooled.add(truth[kept], predicted[kept])
        assert_close(scores.by_size[name], pooled.iou[pooled.truth > 0].mean(), message=name)
    assert scored(*pairs, background=None).compute_scores().by_size == {}


def test_what_cannot_be_counted_is_refused() -> None:
    matrix, truth = Confusion.of(2), np.zeros((2, 3), np.int32)
    with pytest.raises(InputError, match=r"of the truth's size \(2, 3\), got \(3, 2\)"):
        matrix.add(truth, truth.T)
    with pytest.raises(InputError, match="prediction as whole numbers, got float64"):
        matrix.add(truth, truth.astype(np.float64))
    with pytest.raises(InputError, match="truth from -1 to 1, got 0 to 2"):
        matrix.add(truth + np.arange(3), truth)
    with pytest.raises(InputError, match="of 2 classes, got one of 3"):
        matrix += Confusion.of(3)
    with pytest.raises(InputError, match="same 6 names"):
        scorer = SemanticScorer(NAMES, 0)
        scorer += SemanticScorer(NAMES, None)
    assert matrix.counts.sum() == 0


def test_vast_pictures_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = maps((31, 47), seed=2)
    whole, pieces = Confusion.of(K), Confusion.of(K)
    whole.add(truth, predicted)
    monkeypatch.setattr(confusion_module, "_PIXELS_AT_ONCE", 100)
    pieces.add(truth, predicted)
    assert (whole.counts == pieces.counts).all() and whole.void == pieces.void


# sizes


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (333, 333), (500, 333), (21, 448), (448, 21), (1, 1), (1000, 700)])
def test_the_truths_resize_is_torchvisions(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(VOID, 300, size, np.int32)
    image = PIL.Image.fromarray((labels % 256).astype(np.uint8))
    theirs = np.asarray(transforms.resize(image, [448], InterpolationMode.NEAREST))
    ours = resize_shorter_side(labels, 448)
    assert (ours % 256 == theirs).all() and ours.dtype == np.int32
    assert set(np.unique(ours)) <= set(np.unique(labels))


@pytest.mark.parametrize(
    ("old", "new"), [((256, 256), (448, 597)), ((256, 256), (597, 448)), ((37, 53), (20, 90)), ((1, 1), (9, 7))]
)
def test_predictions_are_stretched_by_the_rule_of_floors(old: tuple[int, int], new: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(VOID, 9, old, np.int32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(labels)[None, None].double(), new, mode="nearest")[0, 0].numpy()
    ours = resize_labels(labels, new)
    assert ours.shape == new and ours.dtype == np.int32
    assert (ours != theirs).mean() < 0.02  # torch scales in single precision: it may take the neighbour where floor is on edge
    slow = [[labels[y * old[0] // new[0], x * old[1] // new[1]] for x in range(new[1])] for y in range(new[0])]
    assert (ours != slow).mean() < 0.02  # and whole numbers do where the double quotient falls a hair short
    assert (resize_labels(labels, old) == labels).all()


def test_the_two_resizes_differ_by_half_a_pixel() -> None:
    labels = np.arange(4, dtype=np.int32)[None].repeat(4, axis=0)
    assert resize_labels(labels, (2, 2))[0].tolist() == [0, 2]
    assert resize_shorter_side(labels, 2)[0].tolist() == [1, 3]


# names


def dataset_of(*samples: SemanticSample, names: tuple[str, ...] = NAMES, background: int | None = 0) -> SemanticDataset:
    return SemanticDataset("a set", names, background, samples, names)


def test_names_are_matched_by_name() -> None:
    dataset = dataset_of().with_spellings({"cow": "a cow"})
    labels = np.array([[0, 1, 2, 3, VOID]], np.int32)
    predicted = LabelMap(labels, ("Cat", "nothing", "a cow", "dog"), background=1)
    assert align_labels(predicted, dataset).tolist() == [[2, 0, 4, 1, VOID]]
    assert align_labels(LabelMap(labels, ("cow", "background", "bird", "sheep")), dataset).tolist() == [[4, 0, 3, 5, VOID]]


def test_names_that_differ_in_case_alone_stay_apart() -> None:
    dataset = dataset_of(names=("Turkey", "turkey"), background=None)
    predicted = LabelMap(np.array([[0, 1]], np.int32), ("turkey", "Turkey"))
    assert align_labels(predicted, dataset).tolist() == [[1, 0]]


def test_a_background_that_the_truth_has_not_is_no_name() -> None:
    predicted = LabelMap(np.array([[0, 1]], np.int32), ("background", "dog"), background=0)
    assert align_labels(predicted, dataset_of(names=("dog",), background=None)).tolist() == [[VOID, 0]]


def test_names_that_the_truth_has_not_are_refused() -> None:
    with pytest.raises(InputError, match="'catt' among them, nearest to 'cat'; it has 6: background, dog"):
        align_labels(LabelMap(np.zeros((1, 1), np.int32), ("dog", "catt")), dataset_of())


def test_names_asked_of_other_pictures_are_wrong_but_known() -> None:
    dataset = dataset_of(names=("background", "bird"))
    predicted = LabelMap(np.array([[0, 1, 2]], np.int32), ("background", "gull", "wren"), 0)
    assert align_labels(predicted, dataset, ("background", "wren"), frozenset({"wren", "gull"})).tolist() == [[0, VOID, 1]]


# whole runs


class Oracle:
    """Says what a table says for each image, in its own order of names, with a background of its own."""

    def __init__(self, answers: dict[str, Maps], own_background: bool = True) -> None:
        self.answers, self.own_background = answers, own_background
        self.asked: list[tuple[str, ...]] = []

    @property
    def provenance(self) -> dict[str, Any]:
        return {"method": "oracle"}

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return list(images)

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        names = Vocabulary.of(classes).names
        self.asked.append(names)
        if self.own_background:
            return LabelMap(self.answers[image.id], ("none of these", *names), 0)
        return LabelMap(self.answers[image.id], names)


def folder_set(
    root: Path, pairs: dict[str, Maps], names: tuple[str, ...] = NAMES, background: int | None = 0
) -> tuple[Path, Path]:
    truth, images = root / "truth", root / "images"
    for id_, labels in pairs.items():
        for folder in (truth / id_, images / id_):
            folder.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(truth / f"{id_}.png", LabelMap(labels, names, background))
        PIL.Image.new("RGB", (labels.shape[1], labels.shape[0])).save(images / f"{id_}.png")
    ClassList(names, background).write(truth)
    return truth, images


def test_a_method_is_asked_for_the_names_and_scored(tmp_path: Path) -> None:
    pairs = {f"deep/{seed}": maps((12, 15), seed) for seed in range(3)}
    protocol = find_semantic_protocol("default")
    dataset = protocol.open_dataset(*folder_set(tmp_path, {id_: t for id_, (t, _) in pairs.items()}))
    oracle = Oracle({id_: p for id_, (_, p) in pairs.items()})
    assert isinstance(oracle, SemanticSegmenter)
    result = score_method(oracle, dataset, protocol, no_progress)
    assert oracle.asked == [NAMES[1:]] * 3
    assert result.scores == scored(*pairs.values()).compute_scores()
    said = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))
    assert said["provenance"] == {"method": "oracle"} and said["protocol"]["name"] == "default" and said["left_out"] == 0
    assert said["scores"]["n_images"] == 3 and said["asked"] == list(NAMES)


def test_the_background_may_be_asked_for_like_the_rest(tmp_path: Path) -> None:
    truth, _ = maps((12, 15), 0)
    write_label_map(tmp_path / "1.png", LabelMap(np.zeros((12, 15), np.int32), NAMES))
    PIL.Image.new("RGB", (15, 12)).save(tmp_path / "1.png")
    sample = SemanticSample("a", tmp_path / "1.png", lambda: truth)
    oracle = Oracle({"a": truth}, own_background=False)
    result = score_method(oracle, dataset_of(sample), find_semantic_protocol("maskclip-coco"), no_progress)
    assert oracle.asked == [NAMES] and result.scores.mean_iou == 1


def test_label_maps_of_a_folder_are_scored_like_the_method_that_wrote_them(tmp_path: Path) -> None:
    pairs = {"a": maps((12, 15), 0), "deep/b": maps((7, 9), 1)}
    protocol = find_semantic_protocol("default")
    truth, _ = folder_set(tmp_path, {id_: t for id_, (t, _) in pairs.items()})
    order = ("sheep", "cow", "bird", "cat", "dog", "background")
    backwards = {id_: np.where(p == VOID, VOID, 5 - p).astype(np.int32) for id_, (_, p) in pairs.items()}
    said, _ = folder_set(tmp_path / "said", backwards, order, background=5)
    result = score_label_maps(said, protocol.open_dataset(truth), protocol, no_progress)
    assert result.scores == scored(*pairs.values()).compute_scores()
    assert result.names == NAMES and result.about["predictions"] == "truth"
    (said / "deep" / "b.png").unlink()
    with pytest.raises(InputError, match=r"1 have none, deep/b\.png among them"):
        score_label_maps(said, protocol.open_dataset(truth), protocol, no_progress)


def test_a_prediction_of_another_size_names_its_picture(tmp_path: Path) -> None:
    truth, images = folder_set(tmp_path, {"a": maps((12, 15), 0)[0]})
    protocol = find_semantic_protocol("default")
    with pytest.raises(InputError, match=r"^a: expected a prediction of the truth's size \(12, 15\), got \(6, 6\)"):
        score_method(Oracle({"a": np.zeros((6, 6), np.int32)}), protocol.open_dataset(truth, images), protocol, no_progress)


# the protocols


def test_unknown_protocols_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'clip-diy-voc'"):
        find_semantic_protocol("clip_diy_voc")


def voc_copy(root: Path, maps_: dict[str, npt.NDArray[np.uint8]]) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for id_, values in maps_.items():
        PIL.Image.new("RGB", (values.shape[1], values.shape[0])).save(root / "JPEGImages" / f"{id_}.jpg")
        PIL.Image.fromarray(values).save(root / "SegmentationClass" / f"{id_}.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(maps_))
    return root


def test_clip_diys_protocol_scores_at_448_by_stretched_predictions(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).choice(np.array([0, 1, 15, 255], np.uint8), (30, 40))
    protocol = find_semantic_protocol("clip-diy-voc")
    dataset = protocol.open_dataset(voc_copy(tmp_path, {"a": truth}))
    assert dataset.asked[11] == "diningtable" and dataset.asked[16] == "potted plant" and dataset.asked[20] == "tv/monitor"
    said = np.random.default_rng(1).choice(np.array([0, 1, 15], np.int32), (16, 16))
    oracle = Oracle({"a": said})
    scores = score_method(oracle, dataset, protocol, no_progress).scores
    assert oracle.asked[0][-1] == "tv/monitor" and len(oracle.asked[0]) == 20
    flat = Confusion.of(21)
    large = resize_shorter_side(np.where(truth == 255, VOID, truth.astype(np.int32)).astype(np.int32), 448)
    assert large.shape == (448, 597)
    flat.add(large, resize_labels(said, (448, 597)))
    assert_close(scores.mean_iou, np.nan_to_num(flat.iou).sum() / 21)  # absent classes are 0
    assert scores.n_images == 1 and scores.absent == "zero"


def test_clip_diys_pictures_have_a_thousand_pixels_of_things(tmp_path: Path) -> None:
    def square(side: int, extra: int) -> Maps:
        labels = np.zeros((50, 60), np.int32)
        labels[:side, :side] = 1
        labels[40, :extra] = 2
        labels[45] = VOID
        return labels

    truth, images = folder_set(tmp_path, {"few": square(31, 38), "enough": square(31, 39)})
    dataset = open_png_folder(truth, images)
    answers = {"few": square(31, 38), "enough": square(31, 39)}
    strict, lenient = (
        score_method(Oracle(answers), dataset, find_semantic_protocol(name), no_progress)
        for name in ("clip-diy-coco", "clip-diy-coco-all")
    )
    assert (strict.scores.n_images, strict.about["left_out"]) == (1, 1)
    assert (lenient.scores.n_images, lenient.about["left_out"]) == (2, 0)


def test_voc20_does_not_score_the_background(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 2, 255]], np.uint8)
    protocol = find_semantic_protocol("maskclip-voc20")
    dataset = protocol.open_dataset(voc_copy(tmp_path, {"a": truth}))
    oracle = Oracle({"a": np.array([[1, 2, 0, 1, 1]], np.int32)}, own_background=False)
    scores = score_method(oracle, dataset, protocol, no_progress).scores
    assert oracle.asked[0][0] == "airplane" and oracle.asked[0][10] == "dining table"
    assert scores.n_pixels == 2 and scores.pixel_accuracy == 1 and tuple(scores.iou) == VOC_NAMES
    assert scores.mean_iou == scores.mean_iou_things == 1


def test_birds_asked_for_by_their_breed(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    breeds = ("001.Black_footed_Albatross", "002.Wren")
    for breed in breeds:
        for kind, ending in (("images", "jpg"), ("segmentations", "png")):
            (folder / kind / breed).mkdir(parents=True)
            PIL.Image.fromarray(np.array([[0, 255]], np.uint8)).save(folder / kind / breed / f"x.{ending}")
    (folder / "images.txt").write_text("".join(f"{k} {b}/x.jpg\n" for k, b in enumerate(breeds)))
    (folder / "train_test_split.txt").write_text("0 0\n1 0\n")
    answers = {f"{breed}/x": np.array([[0, 1]], np.int32) for breed in breeds}
    for name, asked in (("cub", [("bird",)] * 2), ("cub-breeds", [("Black footed Albatross",), ("Wren",)])):
        oracle, protocol = Oracle(answers), find_semantic_protocol(name)
        result = score_method(oracle, protocol.open_dataset(folder), protocol, no_progress)
        assert oracle.asked == asked and result.scores.iou == {"background": 1.0, "bird": 1.0}


def test_protocols_say_what_does_not_fit(tmp_path: Path) -> None:
    for name in ("voc21", "coca", "imagenet-s-919", "cub"):
        with pytest.raises(InputError, match="leave --images out"):
            find_semantic_protocol(name).open_dataset(tmp_path, tmp_path)
    for name in ("default", "coca", "coco-object", "clip-diy-coco"):
        with pytest.raises(InputError, match="leave --split out"):
            find_semantic_protocol(name).open_dataset(tmp_path, None, "val")
    with pytest.raises(InputError, match="unknown split 'val'"):
        find_semantic_protocol("cub").open_dataset(tmp_path, None, "val")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_asks_for_its_files_and_says_its_rules(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        PROTOCOLS[name].open_dataset(tmp_path / "nowhere")
    rules = json.loads(json.dumps(PROTOCOLS[name].to_json_dict()))
    assert rules["name"] == name and len(rules["about"]) > 20


# what people see


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def a_scores() -> SemanticScores:
    truth = np.array([[1, 1, 2, 2, 3, 3, 3, 3]], np.int32)
    return scored((truth, np.array([[1, 1, 2, 1, 0, 0, 0, 0]], np.int32))).compute_scores()


def test_tables() -> None:
    shown = text_of(as_semantic_table({"clip_diy": a_scores()}, "VOC"))
    assert "mIoU" in shown and "clip_diy" in shown and "29.2" in shown  # the mean of 0, 2/3, 1/2 and 0
    empty = text_of(as_semantic_table({"none": SemanticScorer(NAMES).compute_scores()}, "nothing"))
    assert empty.count(" - ") == 7
    classes = text_of(as_class_table(a_scores(), "classes"))
    assert classes.index("dog") < classes.index("cat") < classes.index("bird") and "sheep" not in classes


def test_the_picture_of_the_matrix() -> None:
    matrix = Confusion.of(K)
    matrix.add(np.array([[1] * 8 + [2] * 4], np.int32), np.array([[1] * 8 + [1, 1, 2, 4]], np.int32))
    image = draw_confusion(matrix, NAMES)
    assert image.mode == "RGB" and image == draw_confusion(matrix, NAMES)
    colors = {tuple(c) for c in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}
    assert (0, 110, 60) in colors  # every dog is a dog
    assert (120, 120, 120) in colors  # the dot of the cow that never was
    matrix.unnamed[1] = 8
    assert draw_confusion(matrix, NAMES).width > image.width
    many = Confusion.of(500)
    many.add(np.arange(500)[None], np.arange(500)[None])
    assert max(draw_confusion(many, [f"class {k}" for k in range(500)]).size) < 1200
    draw_confusion(Confusion.of(1), ["nothing yet"])
