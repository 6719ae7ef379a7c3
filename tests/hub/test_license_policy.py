from dataclasses import replace

import pytest

from annofree.errors import InputError
from annofree.hub.cards import list_known_cards
from annofree.hub.license_policy import PERMISSIVE, check

CARDS = list_known_cards()
PIPELINE = [CARDS["openai-rn50x64"], CARDS["openai-vit-b-16"], CARDS["sam-b"]]


def test_what_keeps_the_rules_passes() -> None:
    check(PIPELINE)
    check(PIPELINE, "S2", "permissive")
    check(PIPELINE, "S4", "MIT, Apache-2.0")
    check([CARDS["dino-vit-s-8"]], "S0", " Permissive ")


def test_the_part_above_the_tier_is_named() -> None:
    with pytest.raises(
        InputError, match=r"^expected models of tier S1 at most, but sam-b is S2 \(class-agnostic masks, as SAM's\)$"
    ):
        check(PIPELINE, "S1")
    with pytest.raises(InputError, match=r"openai-rn50x64 is S1 \(image-text pairs\), .*, sam-b is S2"):
        check(PIPELINE, "S0")


def test_an_unknown_licence_is_not_permissive() -> None:
    with pytest.raises(InputError, match=r"^expected licences permissive, but selfmask-nq20's weights are unknown$"):
        check([*PIPELINE, CARDS["selfmask-nq20"]], licence="permissive")
    with pytest.raises(InputError, match=r"but openai-rn50's code is unknown$"):
        check([replace(CARDS["openai-rn50"], code_licence="")], licence="permissive")
    with pytest.raises(InputError, match=r"but dinov3-vit-s-16's weights are LicenseRef-DINOv3 and code is LicenseRef-DINOv3$"):
        check([CARDS["dinov3-vit-s-16"]], licence="permissive")


def test_both_rules_are_told_at_once() -> None:
    with pytest.raises(
        InputError, match=r"sam-b is S2 .*; expected licences MIT, but sam-b's weights are Apache-2.0 and code is"
    ):
        check(PIPELINE, "S1", "MIT")


@pytest.mark.parametrize("tier", ["S5", "s1", "", "1"])
def test_a_tier_that_is_none(tier: str) -> None:
    with pytest.raises(InputError, match=f"unknown tier '{tier}'"):
        check(PIPELINE, tier)


@pytest.mark.parametrize("licence", ["", " , "])
def test_no_licence(licence: str) -> None:
    with pytest.raises(InputError, match=r"expected --license permissive, or SPDX ids"):
        check(PIPELINE, licence=licence)


def test_what_is_permissive() -> None:
    assert {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC"} <= PERMISSIVE
    assert not {"unknown", "GPL-3.0-only", "AGPL-3.0-only", "CC-BY-NC-4.0", "LicenseRef-DINOv3", ""} & PERMISSIVE
