"""TCL and GroupViT on the paper world, and what they share: windows of a resized image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from annofree.methods.dense.groupvit import VARIANTS as GROUPVIT_VARIANTS
from annofree.methods.dense.groupvit import GroupVitMethod
from annofree.methods.dense.tcl import VARIANTS as TCL_VARIANTS
from annofree.methods.dense.tcl import Tcl
from annofree.methods.dense.windowed import WindowedMethod
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.testing.conformance import CHECKS
from annofree.testing.fake_text_supervised import FakeGroupVit, FakeTcl
from annofree.testing.fakes import FakeClip
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS

SMALL: dict[str, Any] = {"short": 113, "window": 96, "stride": 48}
"""An odd side, so that no pixel lies half way between two of the resized image, where two names would tie."""


def make_tcl(variant: str = "default", **changes: Any) -> Tcl:
    return Tcl(FakeTcl(), FakeClip(), replace(TCL_VARIANTS[variant], **{**SMALL, **changes}))


def make_groupvit(variant: str = "default", **changes: Any) -> GroupVitMethod:
    """All names may be in a window: what groups of none of five names are like is a tie, which their order decides."""
    return GroupVitMethod(FakeGroupVit(), replace(GROUPVIT_VARIANTS[variant], **SMALL, **{"names": 20, **changes}))


MAKERS: dict[str, Callable[..., WindowedMethod[Any, Any]]] = {"tcl": make_tcl, "groupvit": make_groupvit}
each_method = pytest.mark.parametrize("name", MAKERS)


@each_method
@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(name: str, check: Callable[[SemanticSegmenter], None]) -> None:
    method = MAKERS[name]()
    assert isinstance(method, SemanticSegmenter) and isinstance(method, Segmenter)
    check(method)


@each_method
@pytest.mark.parametrize("check", CHECKS[2:], ids=lambda check: check.__name__)
def test_instances_conform_where_touching_ones_need_not_be_told_apart(name: str, check: Callable[[Segmenter], None]) -> None:
    if check.__name__ not in ("check_absent_classes", "check_no_memory"):  # these look for every object of a scene
        check(MAKERS[name]())
