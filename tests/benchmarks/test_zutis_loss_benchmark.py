import json
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks import zutis_loss


def test_it_runs_and_tells_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zutis_loss.main(["--small", "--json", str(tmp_path / "found.json")])
    said = capsys.readouterr().out
    assert "equal losses and gradients" in said and "together" in said and ">= 2" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["ratios"]) == {"masks", "semantic", "together"}
    assert all(len(found["seconds"][part][way]) == 2 for part in found["ratios"] for way in ("ours", "official"))
    for part, spread in found["ratios"].items():
        ways = found["seconds"][part]
        each = [b / a for a, b in zip(ways["ours"], ways["official"], strict=True)]
        assert spread["least"] == min(each) and spread["most"] == max(each)


def test_ways_that_do_not_agree_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(proposals: Tensor, instances: list[Tensor]) -> Tensor:
        return 1.01 * zutis_loss.official_masks(proposals, instances)

    monkeypatch.setattr(zutis_loss, "our_masks", other)
    with pytest.raises(SystemExit, match="expected equal masks losses"):
        zutis_loss.main(["--small"])


def test_the_official_way_is_slower_by_its_own_measure() -> None:
    spread = zutis_loss.ratios({"masks": {"ours": [1.0, 2.0, 1.0], "official": [2.0, 8.0, 3.0]}})["masks"]
    assert spread == (3.0, 2.0, 4.0)
