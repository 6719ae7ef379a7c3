"""Learning from a folder: rounds, what is told of them without a label, resuming, and folders that give nothing to learn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.pipelines.learning import rounds as learning_rounds
from annofree.pipelines.learning.effort import choose_steps, list_initial_cards, measure_pace, read_recipe
from annofree.pipelines.learning.judge import choose_best, explain_end, hold_out, measure_agreement, measure_stability
from annofree.pipelines.learning.label_choice import choose_labels
from annofree.pipelines.learning.learn import learn
from annofree.pipelines.segment import segment
from annofree.structures import Classes, Detections, Image
from annofree.training.detector.recipe import DetectorRecipe

SCENES = Path(__file__).parents[2] / "examples" / "scenes"
NAMES = "zebra, giraffe, orange, elephant"
SMALL = """
initial = ""
batch = 1
bf16 = false
warmup = 1
[network]
layers = [1, 1, 1, 1]
width = 8
channels = 8
fc = 8
mask_convs = 1
side = 64
longest = 64
[scenes]
sides = [64]
longest = 64
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("elephants", "oranges", "zoo"):
        shutil.copy(SCENES / f"{name}.jpg", folder)
    (folder / "broken.jpg").write_bytes(b"no image at all")
    return folder


def run(photos: Path, config: Path, out: Path, **options: Any) -> Any:
    return learn(
        photos, NAMES, out, models="tiny", device="cpu", config=config, **{"rounds": 1, "steps": 2, "bank": False, **options}
    )


@pytest.fixture(scope="module")
def learned(photos: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[str]]:
    notes: list[str] = []
    out = tmp_path_factory.mktemp("learned") / "out"
    return run(photos, config, out, callbacks=Callbacks(on_note=notes.append)), notes


def test_what_it_goes_on_from_has_a_tier_too(photos: Path, config: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"models": "tiny", "method": "clip_diy", "device": "cpu", "max_tier": "S1"}
    with pytest.raises(InputError, match="expected models of tier S1 at most, but tiny-detector is S2"):
        learn(photos, NAMES, tmp_path / "out", **options)
    (tmp_path / "clip.toml").write_text('initial = "tiny-clip"')
    assert [card.tier for card in list_initial_cards("tiny", tmp_path / "clip.toml")] == ["S1"]
    assert list_initial_cards("tiny", config) == []
    (tmp_path / "file.toml").write_text('initial = "other/weights.safetensors"')
    with pytest.raises(InputError, match="expected weights with a card"):
        learn(photos, NAMES, tmp_path / "out", config=tmp_path / "file.toml", **options)
    assert not (tmp_path / "out").exists()


def read_rows(learned: Any, part: str) -> Any:
    return json.loads(learned.labels.read_text())[part]


def raising(problem: BaseException) -> Callable[..., Any]:
    def stop(*args: Any, **options: Any) -> Any:
        raise problem

    return stop


def require_same(again: Any, found: Any) -> None:
    """Labels, detector and figures of two learnings are the same, but for the time that they took."""
    for part in ("images", "annotations", "categories"):
        assert read_rows(again, part) == read_rows(found, part)
    for name in ("model.safetensors", "detector.json"):
        assert (again.detector / name).read_bytes() == (found.detector / name).read_bytes()
    for ours, theirs in zip(again.summary["rounds"], found.summary["rounds"], strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}


class TestLearn:
    def test_it_leaves_labels_a_detector_and_a_page(self, learned: Any) -> None:
        found, _ = learned
        rows = json.loads(found.labels.read_text())
        names = {row["id"]: row["name"] for row in rows["categories"]}
        assert rows["annotations"] and {names[row["category_id"]] for row in rows["annotations"]} <= set(NAMES.split(", "))
        assert len(rows["images"]) == 3, "the broken file has no labels"
        card = json.loads((found.detector / "card.json").read_text())
        assert card["name"] == "learned-1" and card["tier"] == "S2" and card["world"] == "emoji"
        assert "Round 1" in found.page.read_text() and not list(found.folder.rglob("checkpoint*"))[2:]

    def test_what_is_learned_answers_as_a_method_and_inside_one(self, learned: Any) -> None:
        found, _ = learned
        scene = SCENES / "oranges.jpg"
        [alone] = segment(scene, NAMES, method=str(found.detector), models="tiny", device="cpu")
        [inside] = segment(scene, NAMES, detector=found.detector, models="tiny", device="cpu")
        assert alone.error is None and inside.error is None and len(inside.detections or ()) > 0

    def test_a_round_is_told_without_labels(self, learned: Any) -> None:
        found, notes = learned
        first, second = found.summary["rounds"]
        assert first["agreement"] is None and 0 <= second["agreement"] <= 1 and 0 < first["stability"] <= 1
        assert first["failed"] == 1 and found.summary["best"] in (0, 1)
        assert any(note.startswith("the method alone: ") for note in notes)
        assert any("few labels" in note for note in notes), "no name has ten labels in three images"

    def test_the_same_call_finds_it_complete(self, learned: Any, photos: Path, config: Path) -> None:
        found, _ = learned
        notes: list[str] = []
        before = found.labels.read_bytes()
        again = run(photos, config, found.folder, callbacks=Callbacks(on_note=notes.append))
        assert again.summary == found.summary and again.labels.read_bytes() == before
        assert notes == [f"the learning in {found.folder} is complete; another --out learns anew"]

    def test_a_bank_shares_in_every_round(self, photos: Path, config: Path, tmp_path: Path) -> None:
        found = run(photos, config, tmp_path / "out", bank=None)
        for place in ("first", "round-1/run"):
            said = json.loads((found.folder / place / "run.json").read_text())
            assert said["provenance"]["bank"]["references"] and "bank" in said["settings"]
        assert len(json.loads(found.labels.read_text())["images"]) == 3
        with pytest.raises(InputError, match="has other bank; choose another --out"):
            run(photos, config, tmp_path / "out", bank=False)
        with pytest.raises(InputError, match="expected a method whose candidates CLIP names for a bank, got detector"):
            run(photos, config, tmp_path / "new", bank=True, method="detector")

    def test_a_learning_that_was_begun_without_a_bank_goes_on_so(self, photos: Path, config: Path, tmp_path: Path) -> None:
        run(photos, config, tmp_path / "out")
        found = run(photos, config, tmp_path / "out", rounds=2, bank=None)
        assert len(found.summary["rounds"]) == 3 or found.summary["ended"] != "all rounds are done"
        assert "bank" not in found.summary["asked"] and not (tmp_path / "out" / "round-1" / "kept").exists()

    def test_where_nothing_is_sure_the_round_is_without_a_bank(
        self, photos: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = import_module("annofree.methods.policies").resolve_bank
        monkeypatch.setattr("annofree.methods.policies.resolve_bank", lambda *names: replace(bank(*names), floor=1.0))
        notes = list[str]()
        found = run(photos, config, tmp_path / "out", bank=None, callbacks=Callbacks(on_note=notes.append))
        assert sum(note.startswith("no bank: expected things to refer to") for note in notes) == 2
        assert json.loads(found.labels.read_text())["annotations"]

    def test_other_names_want_another_folder(self, learned: Any, photos: Path, config: Path) -> None:
        found, _ = learned
        with pytest.raises(InputError, match="has other classes; choose another --out"):
            learn(photos, "dog", found.folder, models="tiny", device="cpu", config=config, rounds=1, steps=2)

    @pytest.mark.parametrize(
        ("stage", "problem"),
        [
            ("rounds.fit_detector", KeyboardInterrupt()),
            ("rounds.measure_stability", KeyboardInterrupt()),
            ("hand_over.export_model", KeyboardInterrupt()),
            ("rounds.write_json", OSError(28, "No space left on device", "learn.json")),
        ],
    )
    def test_a_stop_or_a_full_disk_at_any_stage_changes_nothing(
        self,
        stage: str,
        problem: BaseException,
        learned: Any,
        photos: Path,
        config: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        room, _, name = stage.partition(".")
        module = import_module(f"annofree.pipelines.learning.{room}")
        with monkeypatch.context() as patch, pytest.raises(type(problem)):
            patch.setattr(module, name, raising(problem))
            run(photos, config, tmp_path / "out")
        require_same(run(photos, config, tmp_path / "out"), learned[0])

    def test_moved_in_a_round_with_its_images_it_goes_on(
        self, learned: Any, photos: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there, notes = tmp_path / "here", tmp_path / "there", list[str]()
        shutil.copytree(photos, here / "photos")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(learning_rounds, "measure_agreement", raising(KeyboardInterrupt()))
            run(here / "photos", config, here / "out")
        assert (here / "out" / "round-1" / "run" / "run.json").is_file(), "which knows its detector by its place"
        here.rename(there)
        again = run(there / "photos", config, there / "out", callbacks=Callbacks(on_note=notes.append))
        require_same(again, learned[0])
        assert any(note.startswith("the learning was moved here from") and str(here) in note for note in notes)
        assert again.summary["place"] == str(there / "out")

    def test_images_that_moved_while_it_was_stopped_are_learned_from(
        self, learned: Any, photos: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(photos, tmp_path / "before")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(learning_rounds, "fit_detector", raising(KeyboardInterrupt()))
            run(tmp_path / "before", config, tmp_path / "out")
        (tmp_path / "before").rename(tmp_path / "after")
        require_same(run(tmp_path / "after", config, tmp_path / "out"), learned[0])


class TestLittleToLearn:
    def test_nothing_found_is_one_line(self, config: Path, tmp_path: Path) -> None:
        PIL.Image.new("RGB", (64, 64), "gray").save(tmp_path / "gray.png")
        with pytest.raises(InputError, match="expected things to learn from, but none of zebra, giraffe, orange, elephant"):
            run(tmp_path, config, tmp_path / "out")
        assert (tmp_path / "out" / "first" / "run.json").is_file(), "what was done stays"

    def test_no_image_that_can_be_read_is_one_line(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        for k in range(4):
            (tmp_path / "photos" / f"{k}.jpg").write_bytes(b"no image at all")
        with pytest.raises(InputError, match=r"expected images that can be read, but of 4 none can: .*0.jpg.*; name another"):
            run(tmp_path / "photos", config, tmp_path / "out")

    def test_one_name_and_one_image_are_learned_from(self, config: Path, tmp_path: Path) -> None:
        notes: list[str] = []
        found = learn(
            SCENES / "oranges.jpg", "orange", tmp_path / "out", models="tiny", device="cpu", config=config, rounds=1, steps=2,
            callbacks=Callbacks(on_note=notes.append),
        )  # fmt: skip
        assert json.loads((found.detector / "detector.json").read_text())["names"] == ["orange"]
        assert "1 images are too few to spare any from training: rounds are judged on what they learned from" in notes
        assert {row["name"] for row in read_rows(found, "categories")} == {"orange"} and read_rows(found, "annotations")

    def test_images_in_memory_are_refused(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected images in files"):
            learn(np.zeros((64, 64, 3), np.uint8), "dog", tmp_path / "out", models="tiny", device="cpu", config=config)

    @pytest.mark.parametrize("method", ["maskcut", "fragments"])
    def test_methods_without_names_are_refused(self, method: str, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected a method that looks at images and names what it finds"):
            learn(photos, "dog", tmp_path / "out", models="tiny", method=method)

    @pytest.mark.parametrize(
        ("options", "said"), [({"rounds": 0}, "rounds"), ({"minutes": -1}, "minutes"), ({"steps": 0}, "steps")]
    )
    def test_numbers_out_of_range_are_refused(self, options: dict[str, Any], said: str, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"expected {said}"):
            learn(photos, "dog", tmp_path / "out", models="tiny", **options)


class TestFoldersAndConfigsThatDoNotServe:
    @pytest.mark.parametrize(
        ("mark", "what", "below"),
        [
            ("run.json", "run", ""),
            ("run.json", "run", "learned"),
            ("shards/settings.json", "run", "a/b"),
            ("detector.json", "detector", "learned"),
            ("learn.json", "learning", "round-1/more"),
        ],
    )
    def test_the_folder_of_something_else_is_left_alone(
        self, mark: str, what: str, below: str, photos: Path, config: Path, tmp_path: Path
    ) -> None:
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).write_text("mine")
        with pytest.raises(
            InputError, match=f"expected --out outside of what else was made, got .*, in the {what} {tmp_path};"
        ):
            run(photos, config, tmp_path / below)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(mark).name]

    def test_a_place_that_cannot_be_written_to_is_one_line(self, photos: Path, config: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match=r"expected a folder to write to, but .*file/out cannot be one"):
            run(photos, config, tmp_path / "file" / "out")

    @pytest.mark.parametrize("text", ["{", "[]", '{"rounds": []}', '{"asked": {}, "rounds": [{"a": 1}], "held out": []}'])
    def test_a_damaged_summary_is_one_line(self, text: str, photos: Path, config: Path, tmp_path: Path) -> None:
        (tmp_path / "learn.json").write_text(text)
        with pytest.raises(InputError, match=r"learn.json as `annofree learn` writes it, but it is damaged: .*; choose"):
            run(photos, config, tmp_path)

    @pytest.mark.parametrize("name", ["detector", "labels", "page"])
    def test_what_another_put_there_is_not_lost(self, name: str, photos: Path, config: Path, tmp_path: Path) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "detector.json").write_text("mine")
        with pytest.raises(InputError, match=f"has {name} and no learn.json; choose another --out"):
            run(photos, config, tmp_path)
        assert (tmp_path / name / "detector.json").read_text() == "mine"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("foo = 1", "unknown field of the recipe"),
            ("batch = 'two'", "expected batch"),
            ("network = 3", "expected network"),
            ("[network]\nwidht = 8", "unknown setting of .network.* width"),
            ("labels = 'mine'", "expected no labels in .*own.toml"),
        ],
    )
    def test_a_config_is_refused_before_anything_is_found(self, text: str, said: str, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "own.toml").write_text(text)
        with pytest.raises(InputError, match=said):
            run(photos, tmp_path / "own.toml", tmp_path / "out")
        assert not (tmp_path / "out" / "first").exists()


class TestLabelChoice:
    @pytest.fixture
    def stored(self, tmp_path: Path) -> Path:
        """A run of a folder of 12 images with many dogs, few cats, and no car."""
        images, out = tmp_path / "images", tmp_path / "run"
        images.mkdir()
        for k in range(3):
            PIL.Image.new("RGB", (32, 32)).save(images / f"{k}.png")
        segment(images, "dog, cat, car", out=out, models="tiny", device="cpu", overlays=False)
        held = json.loads((out / "annotations.json").read_text())
        box, mask = [0, 0, 8, 8], {"size": [32, 32], "counts": "0880880880880880880880880d20"}
        scores = {1: [0.9] * 10 + [0.45] * 30, 2: [0.5, 0.3, 0.25, 0.1]}
        rows = [
            {"image_id": 1, "category_id": name, "bbox": box, "area": 64, "iscrowd": 0, "segmentation": mask, "score": score}
            for name, own in scores.items()
            for score in own
        ]
        held["annotations"] = [{"id": n, **row} for n, row in enumerate(rows, 1)]
        (out / "annotations.json").write_text(json.dumps(held))
        about = json.loads((out / "run.json").read_text())
        about.pop("files", None)
        (out / "run.json").write_text(json.dumps(about))
        return out

    def test_a_rare_name_has_a_lower_floor_and_a_common_one_no_more_than_thrice_the_median(
        self, stored: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("annofree.runs.store.summary.require_unchanged", lambda *args: None)
        choice = choose_labels(stored, floor=0.4, least=3)
        assert choice.answered == {"dog": 40, "cat": 1, "car": 0}
        assert choice.rules.min_score.usual == 0.4 and choice.rules.min_score.named == pytest.approx({"cat": 0.25})
        assert choice.rules.per_class == 62, "three times the median of 40 and 1"
        assert choice.chosen == {"dog": 40, "cat": 3, "car": 0} and choice.list_few(4) == {"cat": 3, "car": 0}

    def test_no_floor_is_lowered_by_more_than_half(self, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("annofree.runs.store.summary.require_unchanged", lambda *args: None)
        assert choose_labels(stored, floor=0.4, least=10).rules.min_score.named == pytest.approx({"cat": 0.2})


def square(at: int, name: int = 0, score: float = 0.9) -> Detections:
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5:12, at : at + 6] = True
    return Detections.from_masks(mask, [name], [score], ["dog", "cat"])


class TestJudge:
    def test_agreement_is_f1_by_name_at_an_iou_of_a_half(self) -> None:
        two = Detections.merge([square(0), square(12, name=1)])
        ours = {"a": two, "b": square(3), "only ours": square(0)}
        theirs = {"a": square(0), "b": square(3, name=1), "only theirs": square(0)}
        assert measure_agreement(ours, theirs, ["a", "b", "only ours"]) == pytest.approx(2 * 1 / 5)
        assert measure_agreement(ours, ours, list(ours)) == 1.0
        assert measure_agreement({"a": two[:0]}, {"a": two[:0]}, ["a"]) is None

    def test_stability_is_one_for_what_turns_with_the_image_and_less_for_what_does_not(self) -> None:
        class Bright:
            """Finds what is bright; or always the left."""

            def __init__(self, turns: bool) -> None:
                self.turns = turns

            def encode(self, images: list[Image]) -> list[Image]:
                return images

            def instances(self, image: Image, classes: Classes) -> Detections:
                mask = np.zeros((1, *image.size), bool)
                mask[0] = image.pixels[..., 0] > 0
                return Detections.from_masks(mask, [0], [0.9], ["dog"]) if self.turns else square(0)

        pixels = np.zeros((20, 20, 3), np.uint8)
        pixels[5:12, 2:8] = 255
        images = [Image(pixels)]
        turning: Any = Bright(True)
        staying: Any = Bright(False)
        assert measure_stability(turning, images, "dog", 0.5) == 1.0
        assert measure_stability(staying, images, "dog", 0.5) == 0.0
        assert measure_stability(turning, images, "dog", 0.95) is None, "under the floor nothing is answered"

    def test_the_same_images_are_spared_whatever_their_order(self) -> None:
        ids = [f"{k}.jpg" for k in range(1000)]
        assert hold_out(ids) == hold_out(ids[::-1]) and len(hold_out(ids)) == 60
        assert len(hold_out(ids[:20])) == 2 and hold_out(ids[:19]) == []

    @pytest.mark.parametrize(
        ("stabilities", "best"), [([0.6, 0.7, 0.8], 2), ([0.6, 0.5, 0.9], 0), ([0.6, 0.595], 1), ([None, 0.5], 1), ([0.7], 0)]
    )
    def test_the_last_round_before_it_gets_worse_is_handed_over(self, stabilities: list[float | None], best: int) -> None:
        assert choose_best([{"stability": value, "instances": 9} for value in stabilities]) == best

    def test_a_round_that_finds_nothing_is_worse_than_one_that_found_something(self) -> None:
        rows: list[dict[str, Any]] = [{"stability": 0.0, "instances": 1}, {"stability": None, "instances": 0}]
        assert choose_best(rows) == 0 and choose_best(rows[1:] + rows[1:]) == 1


def test_a_round_that_is_right_less_often_by_calibrated_scores_is_worse() -> None:
    row = {"stability": 1.0, "agreement": 0.5, "instances": 9, "calibrated": True}
    rounds = [row | {"expected": 25.0}, row | {"expected": 23.0}]
    assert choose_best(rounds) == 0 and "right less often by its scores than the method alone" in str(explain_end(rounds))
    unknown = [one | {"calibrated": False} for one in rounds]
    assert choose_best(unknown) == 1 and explain_end(unknown) is None


class TestEffort:
    def test_steps_fit_the_time(self) -> None:
        recipe = DetectorRecipe(Path("labels"), Path("out"), steps=1000)
        assert choose_steps(recipe, 0.5, 100) == 180
        assert choose_steps(recipe, 0.5, 1e6) == 1000 and choose_steps(recipe, 0.5, 0) == 60
        assert choose_steps(DetectorRecipe(Path("labels"), Path("out"), steps=7), 0.5, -5) == 7

    def test_a_pace_is_measured_and_nothing_stays(self, learned: Any, config: Path, tmp_path: Path) -> None:
        found, _ = learned
        fields = read_recipe("tiny", config) | {"labels": found.folder / "round-1" / "labels", "out": tmp_path / "out"}
        assert 0 < measure_pace(DetectorRecipe(**fields), "cpu") < 10
        assert not (tmp_path / "out").exists()

    def test_a_config_is_laid_over_the_presets_own(self, config: Path) -> None:
        fields = read_recipe("tiny", config)
        assert fields["network"]["width"] == 8 and fields["network"]["kind"] == "cascade" and fields["batch"] == 1
        assert read_recipe("fast", None)["initial"] == "openai-rn50"
