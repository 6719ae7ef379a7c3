import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import load_file, save_file
from torch import Tensor

from annofree.errors import InputError, MissingError
from annofree.features.clip_network import CONFIG, WEIGHTS, load_clip
from annofree.testing.tolerances import assert_close

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 9, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def config_of(vision: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT, **others}


def save(folder: Path, settings: dict[str, Any], state: dict[str, Tensor], **others: Any) -> Path:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": settings, **others}))
    return folder


def tokens() -> Tensor:
    return torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0))


def outputs(model: Any) -> tuple[Tensor, Tensor]:
    side = 64 if hasattr(model.visual, "attnpool") else 32
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.eval().encode_image(x), model.encode_text(tokens())


def assert_alike(ours: Any, theirs: Any) -> None:
    for a, b in zip(outputs(ours), outputs(theirs), strict=True):
        assert_close(a, b, depth="network")


@pytest.mark.parametrize("vision", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_folder_is_the_model_it_was_saved_from(tmp_path: Path, vision: dict[str, Any]) -> None:
    model = CLIP(**config_of(vision))
    random = torch.get_rng_state()
    loaded = load_clip(save(tmp_path, config_of(vision), model.state_dict()))
    assert torch.equal(torch.get_rng_state(), random), "building it draws no random numbers"
    assert_alike(loaded.model, model)
    assert loaded.tokenizer(["a dog"]).shape == (1, 9)
    assert not any(p.requires_grad or p.is_meta for p in [*loaded.model.parameters(), *loaded.model.buffers()])


def test_a_text_tower_in_a_room_of_its_own(tmp_path: Path) -> None:
    """custom_text: new files name it ``text.``, old ones do not."""
    model = CustomTextCLIP(**config_of(VIT))
    settings, state = config_of(VIT, custom_text=True), model.state_dict()
    assert_alike(load_clip(save(tmp_path, settings, state)).model, model)
    old = {k.removeprefix("text."): v for k, v in state.items()}
    assert_alike(load_clip(save(tmp_path, settings, old)).model, model)


@pytest.mark.parametrize("trained_with", [True, False])
@pytest.mark.parametrize("said", [{}, {"quick_gelu": False}, {"quick_gelu": True}], ids=str)
def test_the_activation_is_the_one_that_the_weights_were_trained_with(
    tmp_path: Path, trained_with: bool, said: dict[str, bool]
) -> None:
    """Whatever the configuration says; images of a ViT and texts are both far off with the other one."""
    model, other = (CLIP(**config_of(VIT, quick_gelu=quick)) for quick in (trained_with, not trained_with))
    other.load_state_dict(model.state_dict())
    for right, wrong in zip(outputs(model), outputs(other), strict=True):
        assert float((right - wrong).abs().max()) > 1e-3
    folder = save(tmp_path, config_of(VIT, **said), model.state_dict())
    assert_alike(load_clip(folder, quick_gelu=trained_with).model, model)


def test_without_word_on_the_activation_the_configuration_holds(tmp_path: Path) -> None:
    model = CLIP(**config_of(VIT, quick_gelu=True))
    folder = save(tmp_path, config_of(VIT, quick_gelu=True), model.state_dict())
    assert_alike(load_clip(folder).model, model)


def test_pixels_are_normalised_as_the_configuration_says_or_as_openai_did(tmp_path: Path) -> None:
    state = CLIP(**config_of(VIT)).state_dict()
    loaded = load_clip(save(tmp_path, config_of(VIT), state, preprocess_cfg={"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}))
    assert_close(loaded.mean, [0.1, 0.2, 0.3])
    assert_close(loaded.std, [0.5, 0.6, 0.7])
    plain = load_clip(save(tmp_path, config_of(VIT), state))
    assert_close(plain.mean, [0.48145466, 0.4578275, 0.40821073])
    assert_close(plain.std, [0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_the_image_tower_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    model = CLIP(**config_of(RESNET))
    loaded = load_clip(save(tmp_path, config_of(RESNET), model.state_dict()), dtype=dtype).model
    assert loaded.visual.conv1.weight.dtype == loaded.visual.attnpool.c_proj.weight.dtype == dtype
    assert loaded.visual.bn1.weight.dtype == loaded.visual.bn1.running_var.dtype == torch.float32
    assert loaded.logit_scale.dtype == loaded.encode_text(tokens()).dtype == torch.float32


def test_weights_saved_in_half_precision_are_read(tmp_path: Path) -> None:
    model = CLIP(**config_of(VIT)).half().float()
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    assert_alike(load_clip(save(tmp_path, config_of(VIT), half)).model, model)


def test_counters_of_batch_norms_may_be_missing(tmp_path: Path) -> None:
    model = CLIP(**config_of(RESNET))
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert_alike(load_clip(save(tmp_path, config_of(RESNET), state)).model, model)


class TestErrors:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return save(tmp_path, config_of(VIT), CLIP(**config_of(VIT)).state_dict())

    def test_missing_weights_are_named(self, folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        del state["visual.proj"], state["ln_final.weight"]
        save(folder, config_of(VIT), state)
        with pytest.raises(InputError, match=r"does not have ln_final\.weight, visual\.proj; fetch both"):
            load_clip(folder)

    def test_weights_too_many_are_named(self, folder: Path) -> None:
        save(folder, config_of(VIT), {**load_file(folder / WEIGHTS), "logit_bias": torch.zeros(())})
        with pytest.raises(InputError, match="the configuration does not, logit_bias;"):
            load_clip(folder)

    def test_weights_of_another_architecture(self, folder: Path) -> None:
        save(folder, config_of(RESNET), load_file(folder / WEIGHTS))
        with pytest.raises(InputError, match=r"does not have visual.attnpool.* and \d+ more"):
            load_clip(folder)
        save(folder, config_of({**VIT, "patch_size": 8}), load_file(folder / WEIGHTS))
        with pytest.raises(InputError, match=r"visual.conv1.weight \(32, 3, 16, 16\) for \(32, 3, 8, 8\)"):
            load_clip(folder)

    @pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "RN50.pt"])
    def test_pickles_are_refused_unread(self, folder: Path, name: str) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps({}))
        with pytest.raises(InputError, match=f"{name}, which may run code"):
            load_clip(folder)
        with pytest.raises(InputError, match="got the file"):
            load_clip(folder / name)

    def test_missing_files(self, folder: Path) -> None:
        (folder / CONFIG).unlink()
        with pytest.raises(MissingError, match=CONFIG):
            load_clip(folder)
        (folder / WEIGHTS).unlink()
        with pytest.raises(MissingError, match=WEIGHTS):
            load_clip(folder)

    def test_weights_that_are_none(self, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(b"<html>not found</html>")
        with pytest.raises(InputError, match="expected safetensors"):
            load_clip(folder)

    @pytest.mark.parametrize("text", ["{", "[]", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": 4, "vision_cfg": {}}}'])
    def test_configurations_that_are_none(self, folder: Path, text: str) -> None:
        (folder / CONFIG).write_text(text)
        with pytest.raises(InputError, match="expected"):
            load_clip(folder)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (config_of({**VIT, "timm_model_name": "vit_base_patch16_siglip_224"}), "timm's vit_base_patch16_siglip_224"),
            (config_of(VIT, multimodal_cfg={}), "CoCa"),
            ({**config_of(VIT), "text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}, "hf_model_name 'roberta-base'"),
            ({**config_of(VIT), "text_cfg": {**TEXT, "hf_tokenizer_name": "t5"}}, "hf_tokenizer_name 't5'"),
            (config_of({**VIT, "colour": "red"}), "colour"),
            (config_of(VIT, made_up=1), "made_up"),
        ],
    )
    def test_towers_of_other_kinds(self, folder: Path, settings: dict[str, Any], said: str) -> None:
        (folder / CONFIG).write_text(json.dumps({"model_cfg": settings}))
        with pytest.raises(InputError, match=said):
            load_clip(folder)

    def test_other_dtypes(self, folder: Path) -> None:
        with pytest.raises(InputError, match=r"torch.bfloat16, torch.float16, got torch.int8"):
            load_clip(folder, dtype=torch.int8)
