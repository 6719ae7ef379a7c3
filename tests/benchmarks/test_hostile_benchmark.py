"""A sample of the hostile inputs: none is a traceback, a write outside, a silent drop; and the oracles see what they should."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from benchmarks.hostile_inputs import annotation_files, runs, suite
from benchmarks.hostile_inputs.sandbox import SECRET, Case, run_case

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks at /proc"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
"""Other tests may have started threads, which a fork does not have."""


def test_a_sample_of_annotations_is_read_or_refused(tmp_path: Path) -> None:
    suite.warm(tmp_path / "warm")
    cases = random.Random(1).sample(annotation_files.list_cases(600), 26)
    outcomes = suite.run_cases(cases, tmp_path / "cases")
    assert {one.case.name: dict(one.faults) for one in outcomes if one.faults} == {}
    assert len(suite.as_table(outcomes).splitlines()) == 2 + len({case.family for case in cases})
    assert {"refused", "whole"} <= {one.kind for one in outcomes}


def test_a_sample_of_run_folders_is_read_or_refused(tmp_path: Path) -> None:
    runs.make_base(tmp_path / "base", models=False)
    wanted = ("run: merge", "run: export")
    cases = [case for case in runs.list_cases(200, tmp_path / "base") if case.family in wanted][:10]
    outcomes = suite.run_cases(cases, tmp_path / "cases")
    assert {one.case.name: dict(one.faults) for one in outcomes if one.faults} == {}


@pytest.mark.parametrize("call", [["models", "list"], ["models", "show", "nothing of the kind"]])
def test_the_oracles_find_nothing_in_good_calls(call: list[str], tmp_path: Path) -> None:
    outcome = run_case(Case("calls", "one", lambda place: call), tmp_path / "case")
    assert dict(outcome.faults) == {} and outcome.code == (0 if call[1] == "list" else 2)


def test_the_oracles_find_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def misbehave() -> None:
        place = Path.cwd().parent
        (place / "beside" / "new.txt").write_text("outside")
        (place / "out").mkdir()
        (place / "out" / "copy.txt").write_bytes(SECRET)
        print("red \x1b[31m")
        raise KeyError("no line")

    monkeypatch.setattr("annofree.apps.cli.main", misbehave)
    case = Case("calls", "one", lambda place: ["x"], contained=(4, 4), count=lambda place: (3, 0, False))
    faults = run_case(case, tmp_path / "case").faults
    assert set(faults) == {"tracebacks", "outside writes", "copied secrets", "control signs"}
    monkeypatch.setattr("annofree.apps.cli.main", lambda: None)
    assert set(run_case(case, tmp_path / "other").faults) == {"silent drops"}
