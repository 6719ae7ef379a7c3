import json
from pathlib import Path

import pytest

from annofree.errors import InputError, MissingError
from annofree.features.weights import Card, bundled, sha256_of


@pytest.fixture
def card(tmp_path: Path) -> Card:
    (tmp_path / "weights.bin").write_bytes(b"abc")
    made = Card(
        name="toy",
        family="none",
        tier="S0",
        licence="Apache-2.0",
        trained_on="nothing",
        world="paper",
        files={"weights.bin": sha256_of(tmp_path / "weights.bin")},
        use={"side": 64, "templates": ["a {}"], "mean": [0.5, 0.25, 0.125]},
        figures={"top1": 0.5},
    )
    made.write(tmp_path)
    return made


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_a_card_is_read_as_it_was_written(card: Card, tmp_path: Path) -> None:
    assert Card.read(tmp_path) == card
    assert card.provenance() == {
        "name": "toy",
        "family": "none",
        "tier": "S0",
        "licence": "Apache-2.0",
        "sha256": {"weights.bin": sha256_of(tmp_path / "weights.bin")},
    }


def test_no_card(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingError, match=r"expected a model folder with card\.json at .*; there is none") as caught:
            Card.read(folder)
        assert str(folder) in str(caught.value)


def test_a_file_of_the_card_that_is_not_there(card: Card, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(MissingError, match=r"the model toy needs weights\.bin beside its card") as caught:
        Card.read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_one_changed_byte_is_noticed(card: Card, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"abd")
    with pytest.raises(InputError, match=r"expected SHA-256 ba7816bf8f01\.\.\., got .*fetch or train the model again"):
        Card.read(tmp_path)


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-sam"])
def test_the_bundled_models_are_what_their_cards_say(name: str) -> None:
    card = Card.read(bundled(name))
    assert card.name == name and card.world == "emoji" and card.licence == "Apache-2.0"
    assert card.tier in {"S0", "S1", "S2", "S3", "S4"}
    inside = {p.name for p in bundled(name).iterdir() if p.suffix != ".py" and p.name != "__pycache__"}
    assert inside == {"card.json", *card.files}
    assert json.loads((bundled(name) / "card.json").read_text(encoding="utf-8"))["name"] == name
