from pathlib import Path

import pytest

from annofree.errors import InputError
from annofree.hub.cards import KINDS, TIERS
from annofree.hub.presets import DEFAULT, find_preset, list_presets


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path))


def test_every_preset_holds_models_of_the_right_kinds() -> None:
    assert set(list_presets()) == {"tiny", "fast", "paper", "best", "modern"} and DEFAULT in list_presets()
    for name, preset in list_presets().items():
        cards = preset.find_cards()
        assert preset.name == name and preset.about
        assert cards["clip"].kind == "clip" and cards["sam"].kind == "sam"
        assert set(preset.use) <= set(cards)
        if "zutis" in cards:
            maker = "tiny-clip" if preset.name == "tiny" else cards["zutis"].name.replace("zutis-coco", "openai")
            assert cards["zutis"].kind == "segmenter" and cards["clip"].name == maker
        if "boundaries" in cards:
            assert cards["boundaries"].family.endswith("ModifiedResNet")


def test_the_paper_preset_is_zips() -> None:
    paper = list_presets()["paper"]
    assert (paper.boundaries, paper.clip, paper.sam) == ("openai-rn50x64", "openai-vit-b-16", "sam-b")
    assert paper.use["boundaries"]["boundary_side"] == 2048
    assert (paper.use["clip"]["dense"], paper.use["clip"]["dense_side"]) == ("surgery", 512)


def test_sizes_tell_fast_from_best() -> None:
    size = {name: sum(c.size for c in p.find_cards().values()) for name, p in list_presets().items()}
    assert size["tiny"] < 4.6e7 < size["fast"] < 1.9e9 < size["paper"] < size["best"]


@pytest.mark.parametrize(
    ("spec", "roles"),
    [
        ("openai-rn50x64+sam-b", ("openai-rn50x64", None, "sam-b", None)),
        ("sam-b + openai-rn50x64", ("openai-rn50x64", None, "sam-b", None)),
        ("openai-vit-b-16+edgetam", ("openai-vit-b-16", None, "edgetam", None)),
        ("openai-rn50x64+openai-vit-b-16+sam-b", ("openai-vit-b-16", "openai-rn50x64", "sam-b", None)),
        ("sam2.1-tiny+laion-vit-b-32+openai-rn50", ("laion-vit-b-32", "openai-rn50", "sam2.1-tiny", None)),
        ("openai-rn50+pe-core-b-16+sam-b", ("pe-core-b-16", "openai-rn50", "sam-b", None)),
        ("openai-rn50+sam-b+dino-vit-s-8", ("openai-rn50", None, "sam-b", "dino-vit-s-8")),
        ("open_clip:ViT-B-16/dfn2b+sam-b+tiny-clip", ("open_clip:ViT-B-16/dfn2b", "tiny-clip", "sam-b", None)),
    ],
)
def test_kinds_decide_the_roles(spec: str, roles: tuple[str | None, ...]) -> None:
    made = find_preset(spec)
    assert (made.clip, made.boundaries, made.sam, made.dino) == roles
    assert made.name == spec and all(card.kind in KINDS and card.tier in TIERS for card in made.find_cards().values())


def test_a_segmenter_has_a_role_of_its_own() -> None:
    made = find_preset("zutis-imagenet-s919-vit-b-32+openai-vit-b-32+sam-b+dino-vit-s-8")
    assert (made.zutis, made.clip, made.dino) == ("zutis-imagenet-s919-vit-b-32", "openai-vit-b-32", "dino-vit-s-8")
    assert find_preset("openai-vit-b-32+sam-b").zutis is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tinny", r"^unknown models preset 'tinny'; did you mean 'tiny'\? Known: best, fast, modern, paper, tiny$"),
        ("", "unknown models preset ''"),
        ("openai-rn50", r"expected a preset, or a CLIP and a SAM joined by \+, such as .*, got openai-rn50 alone"),
        ("open_clip:RN50/openai", "got clip open_clip:RN50/openai$"),
        ("openai-rn5+sam-b", "unknown model 'openai-rn5'; did you mean 'openai-rn50'"),
        ("openai-rn50+", "unknown model ''"),
        ("openai-rn50+dino-vit-s-8", "expected one or two CLIPs and one SAM .*, got clip openai-rn50, dino dino-vit-s-8"),
        ("openai-rn50+sam-b+sam-h", "expected one or two CLIPs and one SAM"),
        ("sam-b+sam-h", "expected one or two CLIPs and one SAM"),
        ("openai-rn50+openai-vit-b-16+tiny-clip+sam-b", "expected one or two CLIPs and one SAM"),
        (
            "openai-vit-b-16+sam-b+zutis-coco-vit-b-16+zutis-imagenet-s919-vit-b-32",
            "segmenter zutis-coco-vit-b-16, segmenter zutis-imagenet-s919-vit-b-32$",
        ),
        (
            "openai-rn50+sam-b+found+selfmask-nq20",
            "expected one or two CLIPs and one SAM .*, saliency found, saliency selfmask-nq20$",
        ),
        (
            "openai-rn50+openai-rn101+sam-b",
            r"one ResNet, for boundaries, .*, got openai-rn50 \(ModifiedResNet\) and openai-rn101",
        ),
        ("openai-vit-b-16+openai-vit-b-32+sam-b", "of two CLIPs one ResNet, for boundaries, and one transformer, for clues"),
    ],
)
def test_what_makes_no_pipeline(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        find_preset(spec)
    assert "\n" not in str(refusal.value)
