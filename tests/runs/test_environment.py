"""Where a run was made: what is told of it."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from annofree.runs import environment as module
from annofree.runs.environment import describe_environment, list_versions

VARIABLES = ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def test_it_holds_what_the_last_digits_depend_on() -> None:
    told = describe_environment()
    assert told == describe_environment() == json.loads(json.dumps(told))
    assert told["capability"] == torch.backends.cpu.get_cpu_capability() and told["threads"] == torch.get_num_threads()
    assert told["versions"] == list_versions() and {"annofree", "python", "torch", "numpy"} <= list_versions().keys()
    assert told["processor"]


def test_variables_are_told_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert describe_environment()["variables"] == {}
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    assert describe_environment()["variables"] == dict.fromkeys(VARIABLES, "1")


@pytest.mark.parametrize("known", [True, False])
def test_a_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    if known:
        lines = b"processor\t: 0\nmodel name\t: Abacus \xff 9\nprocessor\t: 1\nmodel name\t: Abacus \xff 9\n"
        (tmp_path / "cpuinfo").write_bytes(lines)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "abacus64")
    assert describe_environment()["processor"] == ("Abacus \ufffd 9" if known else "abacus64")


def test_a_gpu_is_named_where_one_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert "gpu" not in describe_environment()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert describe_environment()["gpu"] == "a GPU"
