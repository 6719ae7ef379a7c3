import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.prompts import TEMPLATES, TextFeatures, compute_fingerprint, find_text_cache, resolve_templates
from annofree.hub.cards import find_bundled
from annofree.structures import Vocabulary
from annofree.testing.tolerances import assert_close

D = 6
NAMES = ["dog", "traffic light", "cat"]


class Tower:
    """Any text to the same D made-up numbers each time, and what was asked of it."""

    def __init__(self, salt: str = "", dtype: torch.dtype = torch.float32) -> None:
        self.calls: list[list[str]] = []
        self.salt, self.dtype = salt, dtype

    def __call__(self, texts: list[str]) -> Tensor:
        self.calls.append(texts)
        seeds = [int.from_bytes(hashlib.sha256((self.salt + t).encode()).digest()[:6]) for t in texts]
        rows = [torch.randn(D, generator=torch.Generator().manual_seed(seed)) * (1 + seed % 5) for seed in seeds]
        return torch.stack(rows).to(self.dtype)

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]


def direct(name: str, templates: tuple[str, ...], salt: str = "") -> Tensor:
    """One prompt a call, as a loop."""
    features = [F.normalize(Tower(salt)([t.replace("{}", name)])[0], dim=0) for t in templates]
    return F.normalize(torch.stack(features).mean(0), dim=0)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_sets_are_the_published_ones() -> None:
    ensemble = TEMPLATES["ensemble"]
    assert len(ensemble) == len(set(ensemble)) == 85
    assert [t.replace("{}", "crane") for t in ensemble[:80]] == [t("crane") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert TEMPLATES["imagenet"] + TEMPLATES["scene"] == ensemble
    assert TEMPLATES["photo"][0] in TEMPLATES["imagenet"]
    assert all(resolve_templates(name) == resolve_templates(list(templates)) for name, templates in TEMPLATES.items())


def test_clip_diy_has_no_full_stop_and_no_an_and_zutis_no_words_around() -> None:
    tower = Tower()
    TextFeatures(tower, "m", "clip-diy").encode_names(["airplane"])
    TextFeatures(tower, "m", "name").encode_names(["airplane"])
    assert tower.texts == ["a photo of a airplane", "airplane"]


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("ensembel", "did you mean 'ensemble'"),
        ([], "at least one template"),
        (["a photo"], "one {} in each template"),
        (["a {} and a {}"], "one {} in each template"),
        (["a {name}"], "one {} in each template"),
        ([b"a {}"], "one {} in each template"),
        (["a {}", "the {}", "a {}"], "each template once, got 'a {}'"),
    ],
)
def test_bad_templates_are_refused(templates: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("}", r"\}")):
        TextFeatures(Tower(), "m", templates)


def test_a_text_in_place_of_a_list_and_an_empty_batch_are_refused() -> None:
    with pytest.raises(InputError, match=r"write \['dog'\]"):
        TextFeatures(Tower(), "m").encode_names("dog")
    with pytest.raises(InputError, match="batch"):
        TextFeatures(Tower(), "m", batch=0)


@pytest.mark.parametrize("templates", ["ensemble", "scene", "photo", "name", ["{}!", "the {} {of braces}"]])
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_feature_is_the_mean_of_its_prompts(templates: str | list[str], batch: int) -> None:
    found = TextFeatures(Tower(), "m", templates, batch=batch).encode_names(NAMES)
    expected = torch.stack([direct(name, resolve_templates(templates)) for name in NAMES])
    assert found.shape == (3, D) and found.dtype == torch.float32
    assert_close(found, expected)
    assert_close(found.norm(dim=1), torch.ones(3))


def test_synonyms_are_averaged_as_unit_features() -> None:
    vocabulary = Vocabulary.of("cat: kitten | tabby, dog")
    tower = Tower()
    found = TextFeatures(tower, "m", "scene").encode_classes(vocabulary)
    cat = torch.stack([direct(word, TEMPLATES["scene"]) for word in ("cat", "kitten", "tabby")]).mean(0)
    assert_close(found, torch.stack([F.normalize(cat, dim=0), direct("dog", TEMPLATES["scene"])]))
    assert len(tower.calls) == 1  # all classes and synonyms at once


def test_the_redundant_feature_is_that_of_the_empty_name() -> None:
    tower = Tower()
    features = TextFeatures(tower, "m")
    assert_close(features.encode_empty_name(), direct("", TEMPLATES["ensemble"]))
    assert tower.texts[0] == "a bad photo of a ."


def test_prompts_of_many_names_share_calls() -> None:
    tower = Tower()
    TextFeatures(tower, "m").encode_names([f"thing {i}" for i in range(80)])
    assert [len(call) for call in tower.calls] == [256] * 26 + [80 * 85 - 26 * 256]


def test_what_is_known_is_not_encoded_again() -> None:
    tower = Tower()
    features = TextFeatures(tower, "m", "photo")
    first = features.encode_names([*NAMES, "dog"])
    assert len(tower.texts) == 3
    assert torch.equal(features.encode_names(["cat", "dog"]), first[[2, 0]])  # in any order
    assert len(tower.texts) == 3
    features.encode_names(["dog", "owl"])
    assert tower.texts[3:] == ["a photo of a owl."]


def test_half_precision_towers_are_averaged_in_single() -> None:
    half = Tower(dtype=torch.float16)
    found = TextFeatures(half, "m", "scene").encode_names(["dog"])
    assert found.dtype == torch.float32
    assert_close(found[0], direct("dog", TEMPLATES["scene"]), dtype=torch.float16)


def test_features_made_in_inference_mode_can_train_a_classifier() -> None:
    with torch.inference_mode():
        words = TextFeatures(torch.inference_mode()(Tower()), "m", "photo").encode_classes(Vocabulary.of(NAMES))
    pixels = torch.ones(2, D, requires_grad=True)
    (gradient,) = torch.autograd.grad((pixels @ words.T).sum(), pixels)
    assert_close(gradient[0], words.sum(0))


def test_the_disk_answers_for_the_tower(tmp_path: Path) -> None:
    first = TextFeatures(Tower(), "m", cache=tmp_path / "a" / "text").encode_names(NAMES)
    tower = Tower()
    again = TextFeatures(tower, "m", cache=tmp_path / "a" / "text").encode_names(NAMES[::-1])
    assert torch.equal(again, first.flip(0)) and not tower.calls
    assert [path.suffix for path in (tmp_path / "a" / "text").iterdir()] == [".safetensors"]


def test_without_a_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path))
    TextFeatures(Tower(), "m", "photo").encode_names(NAMES)
    assert list(tmp_path.iterdir()) == []


def test_models_and_templates_are_never_mixed(tmp_path: Path) -> None:
    for salt, model in (("", "m"), ("other", "n")):
        for templates in ("photo", "clip-diy", ["the {}"]):
            tower = Tower(salt)
            found = TextFeatures(tower, model, templates, cache=tmp_path).encode_names(["dog"])
            assert_close(found[0], direct("dog", resolve_templates(templates), salt))
            assert len(tower.calls) == 1
    assert len(list(tmp_path.iterdir())) == 6
    # a list of one's own with the words of a named set is that set
    tower = Tower()
    TextFeatures(tower, "m", ["a photo of a {}."], cache=tmp_path).encode_names(["dog"])
    assert not tower.calls


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    names = ["", "Ünïcödé 犬 🐶", "x" * 5000, "__metadata__", "features", "a/b\\c", "{}", "{0}", 'quote "', "new\nline", "café"]
    first = TextFeatures(Tower(), "m", "photo", cache=tmp_path).encode_names(names)
    tower = Tower()
    assert torch.equal(TextFeatures(tower, "m", "photo", cache=tmp_path).encode_names(names), first) and not tower.calls
    assert_close(first, torch.stack([direct(name, TEMPLATES["photo"]) for name in names]))


def test_new_names_join_those_of_other_processes(tmp_path: Path) -> None:
    one, other = (TextFeatures(Tower(), "m", "photo", cache=tmp_path) for _ in range(2))
    one.encode_names(["dog"])
    other.encode_names(["cat"])
    one.encode_names(["owl"])
    tower = Tower()
    TextFeatures(tower, "m", "photo", cache=tmp_path).encode_names(["dog", "cat", "owl"])
    assert not tower.calls


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def work(writer: int) -> Tensor:
        features = TextFeatures(Tower(), "m", "name", cache=tmp_path)
        return torch.stack([features.encode_names([f"{writer} {i}", f"shared {i}"])[0] for i in range(25)])

    with ThreadPoolExecutor(4) as pool:
        for writer, found in enumerate(pool.map(work, range(4))):
            assert_close(found, torch.stack([direct(f"{writer} {i}", ("{}",)) for i in range(25)]))
    assert len(load_file(only_file(tmp_path))["features"]) >= 50  # and nothing temporary is left beside it


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "strange", "text", "names", "nan", "another", "folder"])
def test_a_broken_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    expected = TextFeatures(Tower(), "m", "photo", cache=tmp_path).encode_names(NAMES)
    path = only_file(tmp_path)
    content = path.read_bytes()
    held = load(content)
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:-10])
        case "noise":
            path.write_bytes(os.urandom(500))
        case "strange":
            save_file({"weights": held["features"]}, path)
        case "text":
            save_file(held | {"about": torch.zeros(9, dtype=torch.uint8)}, path)
        case "names":
            save_file(held | {"features": held["features"][1:].clone()}, path)
        case "nan":
            save_file(held | {"features": held["features"] * torch.nan}, path)
        case "another":
            TextFeatures(Tower("other"), "n", "photo", cache=tmp_path).encode_names(NAMES)
            only_file(tmp_path).rename(path)
        case "folder":
            path.mkdir()
    tower = Tower()
    assert torch.equal(TextFeatures(tower, "m", "photo", cache=tmp_path).encode_names(NAMES), expected)
    assert len(tower.calls) == 1
    tower = Tower()
    assert torch.equal(TextFeatures(tower, "m", "photo", cache=tmp_path).encode_names(NAMES), expected)
    assert len(tower.calls) == (1 if damage == "folder" else 0)  # mended, where it can be


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = TextFeatures(Tower(), "m", "photo", cache=tmp_path / "file" / "text").encode_names(["dog"])
    assert_close(found[0], direct("dog", TEMPLATES["photo"]))


def test_features_are_kept_in_annofrees_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANNOFREE_HOME", str(tmp_path))
    assert find_text_cache() == tmp_path / "text"
    assert not find_text_cache().exists()


def test_a_fingerprint_is_of_every_file() -> None:
    files = {"a": "12", "b": "34"}
    assert compute_fingerprint(files) == compute_fingerprint(dict(reversed(files.items())))
    assert len({compute_fingerprint(f) for f in (files, {"a": "34", "b": "12"}, {"a": "12"}, {"a": "12", "b": "35"})}) == 4


@pytest.mark.parametrize(("files", "named"), [({"a": "12", "b": None}, "for b"), ({"a": ""}, "for a"), ({}, "for any")])
def test_files_without_a_hash_have_no_fingerprint(files: dict[str, str | None], named: str) -> None:
    with pytest.raises(InputError, match=named):
        compute_fingerprint(files)


def test_a_real_tower_gives_what_clip_gives() -> None:
    clip = Clip(find_bundled("tiny-clip"))
    features = TextFeatures(
        lambda texts: clip._model.encode_text(clip._tokenizer(texts)),
        compute_fingerprint(clip.card.files),
        clip.settings["templates"],
    )
    vocabulary = Vocabulary.of("cat: bear | dog, traffic light, zebra")
    assert_close(features.encode_classes(vocabulary), clip.encode_text(vocabulary), depth="network")


def test_what_is_new_is_counted_and_kept_while_names_are_learned(tmp_path: Path) -> None:
    """Killed after the first names, the next one goes on from there."""
    words = Vocabulary.of("a, b: c | d, e")
    calls: list[int] = []

    def encode(texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return torch.eye(4)[: len(texts)]

    first = TextFeatures(encode, "m", "photo", cache=tmp_path, batch=2)
    assert first.count_new_texts(words) == 5
    with pytest.raises(KeyboardInterrupt):
        first.encode_classes(words)
    again = TextFeatures(encode, "m", "photo", cache=tmp_path, batch=2)
    assert again.count_new_texts(words) == 3
    again.encode_classes(words)
    assert again.count_new_texts(words) == 0 and calls == [2, 2, 2, 1]
