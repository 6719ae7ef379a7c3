"""Who does what: tasks, methods and models as ``annofree segment`` was asked for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from annofree.clues.objectness import InstanceObjectness
from annofree.errors import InputError
from annofree.methods.build import MethodSpec
from annofree.methods.components import Models
from annofree.methods.dense.clip_diy import ClipDiy
from annofree.methods.registry import find_method
from annofree.methods.zip import Zip
from annofree.pipelines.plan import DEFAULTS, Plan, parse_stuff, parse_tasks
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

WORDS = Vocabulary.of("dog, grass, traffic light")


def plan(task: str = "instance", method: str | None = None, **more: Any) -> Plan:
    rest = {"variant": "default", "models": "tiny", "objectness": "found", "device": "cpu", "stuff": ()}
    return Plan(parse_tasks(task), method, **{**rest, **more})


# Tasks


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("instance", ("instance",)),
        ("semantic,instance", ("semantic", "instance")),
        (" instance , panoptic ", ("instance", "panoptic")),
        ("semantic,semantic", ("semantic",)),
    ],
)
def test_tasks_are_joined_by_commas(task: str, wanted: tuple[str, ...]) -> None:
    assert parse_tasks(task) == wanted


@pytest.mark.parametrize("task", ["", "instance,", "semantics", "instance;semantic"])
def test_unknown_tasks_are_refused_with_the_nearest(task: str) -> None:
    with pytest.raises(InputError, match=r"unknown task .*Known: instance, panoptic, semantic$"):
        parse_tasks(task)


def test_the_nearest_task_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown task 'panoptik'; did you mean 'panoptic'"):
        parse_tasks("instance,panoptik")


# Methods


@pytest.mark.parametrize(
    ("task", "method", "who"),
    [
        ("instance", None, {"instance": "zip"}),
        ("semantic", None, {"semantic": "clip_diy"}),
        ("panoptic", None, {"instance": "zip", "semantic": "clip_diy"}),
        ("instance,semantic,panoptic", None, {"instance": "zip", "semantic": "clip_diy"}),
        ("instance", "sam_clip", {"instance": "sam_clip"}),
        ("instance", "maskclip", {"instance": "maskclip"}),
        ("instance", "clip_diy", {"instance": "clip_diy"}),
        ("semantic", "maskclip", {"semantic": "maskclip"}),
        ("instance,semantic", "maskclip", {"instance": "maskclip", "semantic": "maskclip"}),
        ("panoptic", "clip_surgery", {"instance": "clip_surgery", "semantic": "clip_surgery"}),
        ("panoptic", "sam_clip", {"instance": "sam_clip", "semantic": "clip_diy"}),
        ("instance,semantic", "clip_diy", {"instance": "zip", "semantic": "clip_diy"}),
        ("panoptic", "sam_clip+clip_diy", {"instance": "sam_clip", "semantic": "clip_diy"}),
        ("panoptic", "clip_diy + zip", {"instance": "zip", "semantic": "clip_diy"}),
        ("panoptic", "zip+maskclip", {"instance": "zip", "semantic": "maskclip"}),
        ("panoptic", "maskclip+zip", {"instance": "zip", "semantic": "maskclip"}),
        ("panoptic", "maskclip+clip_diy", {"instance": "maskclip", "semantic": "clip_diy"}),
    ],
)
def test_who_does_what(task: str, method: str | None, who: dict[str, str]) -> None:
    assert plan(task, method).resolve_methods() == who


@pytest.mark.parametrize(
    ("task", "method", "message"),
    [
        ("semantic", "zip", r"^expected a method for semantic, but zip does instance; ask for --task instance$"),
        ("instance", "zip+clip_diy", r"but zip does instance, so clip_diy is left with none$"),
        (
            "panoptic",
            "zip+sam_clip",
            r"^expected methods with a task each, but zip does instance, so sam_clip is left with none$",
        ),
        ("panoptic", "maskclip+clip_surgery", r"maskclip does instance and semantic, so clip_surgery is left with none$"),
        ("panoptic", "zip+clip_diy+maskclip", r"zip does instance, clip_diy does semantic, so maskclip is left with none$"),
        ("instance", "zipp", r"unknown method 'zipp'; did you mean 'zip'\?"),
        ("panoptic", "zip+clipdiy", r"unknown method 'clipdiy'; did you mean 'clip_diy'"),
        ("panoptic", "zip+", r"unknown method ''"),
        ("instance", "", r"unknown method ''"),
    ],
)
def test_methods_that_do_not_fit_are_refused(task: str, method: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(task, method).resolve_methods()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[MethodSpec]:
    """Build nothing, and record what would be."""
    specs: list[MethodSpec] = []

    def build(spec: MethodSpec, vocabulary: Vocabulary) -> Any:
        specs.append(spec)
        return f"{spec.method} {len(specs)}"

    monkeypatch.setattr(MethodSpec, "build", build)
    return specs


def spec(method: str, **more: Any) -> MethodSpec:
    return MethodSpec(method, models="tiny", device="cpu", **more)


def test_only_what_is_needed_is_built(built: list[MethodSpec]) -> None:
    tasks: Any = plan("instance", objectness="none").load_tasks(WORDS)
    assert built == [spec("zip")]
    assert (tasks.wanted, tasks.instances, tasks.semantic) == (("instance",), "zip 1", None)


def test_what_does_both_is_built_once(built: list[MethodSpec]) -> None:
    tasks: Any = plan("instance,semantic", "maskclip", variant="pamr").load_tasks(WORDS)
    assert built == [spec("maskclip", variant="pamr")]
    assert tasks.instances is tasks.semantic == "maskclip 1"


def test_objectness_goes_to_those_that_take_it(built: list[MethodSpec]) -> None:
    tasks: Any = plan("panoptic", objectness="tokencut", stuff=("grass",)).load_tasks(WORDS)
    stuff = ("grass",)
    assert built == [spec("zip", stuff=stuff), spec("clip_diy", objectness="tokencut", stuff=stuff)]
    assert (tasks.instances, tasks.semantic, tasks.stuff) == ("zip 1", "clip_diy 2", ("grass",))


@pytest.mark.parametrize(
    ("method", "variants"),
    [
        (None, {"zip": "official", "clip_diy": "official"}),
        ("zip", {"zip": "official", "clip_diy": "default"}),
        ("clip_diy", {"zip": "default", "clip_diy": "official"}),
        ("clip_diy+zip", {"zip": "default", "clip_diy": "official"}),
        ("zip + maskclip", {"zip": "official", "maskclip": "default"}),
    ],
)
def test_the_variant_is_that_of_the_first_named(method: str | None, variants: dict[str, str]) -> None:
    specs = plan("panoptic", method, variant="official").make_specs().values()
    assert {spec.method: spec.variant for spec in specs} == variants


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_unknown_words_are_refused_at_birth(task: str) -> None:
    with pytest.raises(InputError, match=r"unknown objectness source 'fond'; did you mean 'found'") as refusal:
        plan(task, objectness="fond")
    assert "Known: cutler, found, found-bkg, instances, maskcut, none, tokencut" in str(refusal.value)
    with pytest.raises(InputError, match=r"unknown precision 'float8'; did you mean 'float"):
        plan(task, precision="float8")
    with pytest.raises(InputError, match=r"unknown policy 'answers'; did you mean 'answer'"):
        plan(task, policy="answers")


def test_an_unknown_variant_of_a_default_method() -> None:
    with pytest.raises(InputError, match=r"unknown variant of clip_diy 'papers'; did you mean 'paper'\?"):
        plan("semantic", variant="papers").check()


def test_objectness_of_instances_is_asked_of_zip_for_the_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "clip", FakeClip())
    monkeypatch.setattr(Models, "sam", FakeSam())
    words = Vocabulary.of((*NAMES, "background"))
    method: Any = plan("semantic", objectness="instances", stuff=("tree",)).load_tasks(words).semantic
    assert isinstance(method, ClipDiy) and isinstance(method.objectness, InstanceObjectness)
    assert isinstance(method.objectness.segmenter, Zip)
    assert method.objectness.classes.names == tuple(name for name in NAMES if name != "tree")
    scene = draw_paper_scenes()[2]  # a tree and an umbrella
    (where,) = method.objectness.predict_maps([scene.image])
    assert np.array_equal(where.numpy() > 0, scene.masks[scene.names.index("umbrella")])
    alone: Any = plan("semantic", objectness="instances", stuff=("tree",)).load_tasks(Vocabulary.of("tree")).semantic
    assert alone.objectness.classes.names == ("tree",)


# Models


@pytest.mark.parametrize(
    ("task", "more", "cards"),
    [
        ("instance", {}, {"openai-vit-b-16", "openai-rn50", "sam2.1-tiny"}),
        ("semantic", {}, {"openai-vit-b-16", "dino-vit-s-8", "found"}),
        ("semantic", {"objectness": "none"}, {"openai-vit-b-16"}),
        ("semantic", {"objectness": "tokencut"}, {"openai-vit-b-16", "dino-vit-s-8"}),
        ("semantic", {"method": "maskclip"}, {"openai-vit-b-16"}),
        ("instance", {"method": "sam_clip"}, {"openai-vit-b-16", "sam2.1-tiny"}),
        ("panoptic", {}, {"openai-vit-b-16", "openai-rn50", "sam2.1-tiny", "dino-vit-s-8", "found"}),
    ],
)
def test_the_cards_are_those_of_the_models_that_are_needed(task: str, more: dict[str, Any], cards: set[str]) -> None:
    assert {card.name for card in plan(task, models="fast", **more).list_cards()} == cards


def test_cards_of_nothing_that_exists() -> None:
    with pytest.raises(InputError, match="unknown objectness source"):
        plan(objectness="fond").list_cards()
    with pytest.raises(InputError, match="unknown models preset"):
        plan(models="fst").list_cards()


def test_every_task_has_somebody_who_does_it() -> None:
    for task, name in DEFAULTS.items():
        assert task in find_method(name).tasks


# Stuff


@pytest.mark.parametrize(
    ("stuff", "names"),
    [
        (None, ()),
        ("", ()),
        ("grass", ("grass",)),
        (" grass , traffic   light", ("grass", "traffic light")),
        ("grass,grass", ("grass",)),
    ],
)
def test_stuff_is_joined_by_commas(stuff: str | None, names: tuple[str, ...]) -> None:
    assert parse_stuff(stuff, WORDS) == names


def test_stuff_that_is_no_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown stuff among the classes 'gras'; did you mean 'grass'\? Known: dog, grass, "):
        parse_stuff("dog, gras", WORDS)
    with pytest.raises(InputError, match="unknown stuff among the classes ''"):
        parse_stuff("grass,", WORDS)
    with pytest.raises(InputError, match="unknown stuff among the classes 'meadow'"):
        parse_stuff("meadow", Vocabulary.of("grass: meadow"))


def test_the_background_is_no_stuff() -> None:
    with pytest.raises(InputError, match=r"^expected stuff with a name of its own, got 'Background', which is no segment"):
        parse_stuff("Background", Vocabulary.of("dog, Background"))


def test_negatives_compete_wherever_a_policy_names_instances_again() -> None:
    asked = plan(method="maskclip", variant="official", negatives=("wall",))
    with pytest.raises(InputError, match="maskclip takes none"):
        asked.load_tasks(WORDS)
    found: Any = replace(asked, policy="answer").load_tasks(WORDS).instances
    assert found.distractors.names[-1] == "wall"
    with pytest.raises(InputError, match="detector takes none"):
        plan(method="detector", negatives=("wall",), policy="answer").load_tasks(WORDS)


def test_a_plan_knows_methods_by_either_name() -> None:
    one, other = (
        Plan(("instance", "semantic"), method, "default", "tiny", "none", "cpu", ())
        for method in ("zip+clip-diy", "zip + clip_diy")
    )
    assert one.resolve_methods() == other.resolve_methods() == {"instance": "zip", "semantic": "clip_diy"}
    assert one.resume_key() == other.resume_key() and one.resume_key()["method"] == "zip+clip_diy"


def test_on_a_cpu_large_models_see_one_image_at_a_time() -> None:
    small, large = plan("instance", "zip"), plan("instance", "zip", models="fast")
    assert (small.count_at_once(None), large.count_at_once(None), large.count_at_once(3)) == (4, 1, 3)
    assert plan("instance", "zip", models="fast", device="meta").count_at_once(None) == 4
