import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from annofree.errors import InputError
from annofree.features.clip_network import Tower, wrap_tower
from annofree.features.towers.positions import PositionRule
from annofree.features.towers.resnet import ResNetTower, pool_attention, project_values
from annofree.features.towers.vit import VitTower
from annofree.ops.grids import shift_images, stitch_maps
from annofree.protocols import DensePath
from annofree.testing.tolerances import assert_close

RESNET_PATHS: tuple[DensePath, ...] = ("value", "surgery", "attention")
VIT_PATHS: tuple[DensePath, ...] = ("value", "value+mlp", "surgery", "attention")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shuffled(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Random weights and statistics, so that nothing is one, zero or alike by construction; the same whatever ran before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
    for name, value in module.state_dict().items():
        if name.endswith(("running_var", "bn3.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and value.ndim < 2:
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
        elif name.endswith("positional_embedding"):
            value.normal_(generator=generator)
        elif value.is_floating_point():
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def resnet() -> ResNetTower:
    return build_tower((1, 1, 1, 1))


def build_tower(layers: tuple[int, ...]) -> ResNetTower:
    return ResNetTower(shuffled(lambda: ModifiedResNet(layers, output_dim=24, heads=4, image_size=128, width=8)))


def vit_of(**changes: Any) -> VisionTransformer:
    shape: dict[str, Any] = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 8, "heads": 4, "mlp_ratio": 2.0}
    return VisionTransformer(**{**shape, "output_dim": 24, **changes})


@pytest.fixture(scope="module")
def vit() -> VitTower:
    return VitTower(shuffled(vit_of))


def parameters_of(tower: Tower) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in tower.visual.state_dict().items()}


class TestAttentionPool:
    def test_at_the_native_size_the_tower_is_as_open_clip_runs_it(self, resnet: ResNetTower) -> None:
        visual = resnet.visual
        x = random(3, 3, 128, 128, seed=1)
        with torch.inference_mode():
            ours, theirs = pool_attention(visual.attnpool, resnet.extract_layer4(x)), visual(x)
        assert ours.shape == (3, resnet.dimension)
        assert_close(F.normalize(ours, dim=1), F.normalize(theirs, dim=1), depth="network")

    def test_at_the_native_size_it_is_the_pool_itself(self, resnet: ResNetTower) -> None:
        pool = copy.deepcopy(resnet.visual.attnpool).double()  # so that little is left to rounding
        x = random(3, pool.v_proj.in_features, 4, 4).double()
        with torch.inference_mode():
            assert_close(pool_attention(pool, x), pool(x))

    @pytest.mark.parametrize(("height", "width"), [(2, 2), (7, 7), (3, 9), (8, 5), (1, 6), (1, 1)])
    def test_at_another_size_it_is_the_pool_with_resized_positions(self, resnet: ResNetTower, height: int, width: int) -> None:
        pool = resnet.visual.attnpool
        x = random(2, pool.v_proj.in_features, height, width)
        before = parameters_of(resnet)
        with torch.inference_mode():
            pool_attention(pool, x)
        after = parameters_of(resnet)
        assert all(torch.equal(before[k], after[k]) for k in before)

        pool, x = copy.deepcopy(pool).double(), x.double()
        first, *cells = pool.positional_embedding.detach()
        side = int(len(cells) ** 0.5)
        grid = torch.zeros(1, len(first), side, side, dtype=torch.double)
        for row in range(side):
            for column in range(side):
                grid[0, :, row, column] = cells[row * side + column]
        if (height, width) != (side, side):
            grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        other = copy.deepcopy(pool)
        listed = [first, *(grid[0, :, row, column] for row in range(height) for column in range(width))]
        other.positional_embedding = nn.Parameter(torch.stack(listed))
        with torch.inference_mode():
            assert_close(pool_attention(pool, x), other(x))

    def test_what_was_seen_before_changes_nothing(self, resnet: ResNetTower) -> None:
        pool = resnet.visual.attnpool
        native = random(1, pool.v_proj.in_features, 4, 4)
        with torch.inference_mode():
            alone = pool_attention(pool, native)
            pool_attention(pool, random(1, pool.v_proj.in_features, 9, 2))
            assert torch.equal(pool_attention(pool, native), alone)


class TestValuePath:
    def test_it_is_the_two_linear_layers_on_each_cell(self, resnet: ResNetTower) -> None:
        pool = resnet.visual.attnpool
        x = random(2, pool.v_proj.in_features, 3, 5)
        with torch.inference_mode():
            dense = project_values(pool, x)
            assert dense.shape == (2, resnet.dimension, 3, 5)
            for b, i, j in np.ndindex(2, 3, 5):
                assert_close(dense[b, :, i, j], pool.c_proj(pool.v_proj(x[b, :, i, j])))

    @pytest.mark.parametrize("size", [(1, 1), (3, 2)])
    def test_where_all_cells_are_alike_it_is_what_the_pool_gives_without_positions(
        self, resnet: ResNetTower, size: tuple[int, int]
    ) -> None:
        pool = copy.deepcopy(resnet.visual.attnpool)
        pool.positional_embedding.data.zero_()
        x = random(1, pool.v_proj.in_features, 1, 1).expand(-1, -1, *size)
        with torch.inference_mode():
            assert_close(project_values(pool, x)[..., 0, 0], pool_attention(pool, x))


class TestResNetTower:
    def test_what_it_is(self, resnet: ResNetTower) -> None:
        assert (resnet.native, resnet.stride, resnet.dimension) == (128, 32, 24)

    def test_conv4_is_layer3_bit_by_bit(self, resnet: ResNetTower) -> None:
        x = random(2, 3, 96, 160).contiguous(memory_format=torch.channels_last)
        v = resnet.visual
        with torch.inference_mode():
            by_hand = v.layer3(v.layer2(v.layer1(v.stem(x))))
            (listed,) = v.forward_intermediates(x, indices=[3], intermediates_only=True)["image_intermediates"]
            assert by_hand.shape == (2, 128, 6, 10)
            assert torch.equal(resnet.extract_conv4(x), by_hand)
            assert_close(resnet.extract_conv4(x), listed, depth="network")

    @pytest.mark.parametrize("layers", [(1, 1, 1, 1), (2, 2, 2, 1), (3, 2, 1, 1)])
    @pytest.mark.parametrize("shifts", [1, 2, 3, 4])
    def test_moved_conv4_is_that_of_moved_images_away_from_the_border(self, layers: tuple[int, ...], shifts: int) -> None:
        """How far conv4_x sees: 5 px in the stem, 4 a block of layer1, 4 and then 8 of layer2, 8 and then 16 of layer3."""
        tower, x = build_tower(layers), random(2, 3, 256, 320)
        seen = 5 + 4 * layers[0] + 4 + 8 * (layers[1] - 1) + 8 + 16 * (layers[2] - 1) + 16  # and the cell itself
        edge = -(-seen * shifts // 16)
        with torch.inference_mode():
            found = tower.extract_conv4(x, shifts)
            expected = stitch_maps(tower.extract_conv4(shift_images(x, 16, shifts)), shifts)
        assert found.shape == expected.shape == (2, 128, 16 * shifts, 20 * shifts)
        inner = (..., slice(edge, -edge), slice(edge, -edge))
        assert expected[inner].numel() and expected[inner].std() > 0.01
        assert_close(found[inner], expected[inner], depth="network")
        assert torch.equal(found, expected) == (shifts in (1, 3))

    @pytest.mark.parametrize("path", RESNET_PATHS)
    def test_a_path_gives_a_cell_a_stride(self, resnet: ResNetTower, path: DensePath) -> None:
        with torch.inference_mode():
            found = resnet.encode_dense(random(2, 3, 64, 224), path)
        assert found.shape == (2, 24, 2, 7) and torch.isfinite(found).all()

    def test_attention_asks_by_each_token_as_the_mean_asks_in_the_pool(self, resnet: ResNetTower) -> None:
        """A cell whose token equals the mean token is pooled as the image is."""
        tower = ResNetTower(copy.deepcopy(resnet.visual))
        tower.visual.attnpool.positional_embedding.data[:] = tower.visual.attnpool.positional_embedding[0].clone()
        x = random(1, 3, 32, 32)
        with torch.inference_mode():
            assert_close(tower.encode_dense(x, "attention")[..., 0, 0], tower.encode_image(x), depth="network")

    def test_surgery_differs_from_attention_by_queries_and_keys_alone(self, resnet: ResNetTower) -> None:
        visual = copy.deepcopy(resnet.visual)
        pool = visual.attnpool
        for projection in (pool.q_proj, pool.k_proj):
            projection.load_state_dict(pool.v_proj.state_dict())
        x = random(2, 3, 64, 96)
        with torch.inference_mode():
            other = ResNetTower(visual, "bilinear").encode_dense(x, "attention")
            assert_close(resnet.encode_dense(x, "surgery"), other, depth="network")

    def test_regions_go_through_the_pool(self, resnet: ResNetTower) -> None:
        x, boxes = random(1, 3, 128, 192), torch.tensor([[10.0, 5.0, 60.0, 50.0], [0.0, 0.0, 96.0, 64.0]])
        with torch.inference_mode():
            found = resnet.encode_regions(x, boxes, (64, 96))
            cells = roi_align(resnet.extract_layer4(x), [boxes / 16], 4, aligned=True)
            assert_close(found, resnet.visual.attnpool(cells), depth="network")

    def test_what_it_does_not_have(self, resnet: ResNetTower) -> None:
        x = random(1, 3, 64, 64)
        with pytest.raises(InputError, match="a ViT has value\\+mlp"):
            resnet.encode_dense(x, "value+mlp")
        for read in (resnet.extract_patches, resnet.extract_keys):
            with pytest.raises(InputError, match="use a ViT"):
                read(x)


class TestVitTower:
    def test_what_it_is(self, vit: VitTower) -> None:
        assert (vit.native, vit.stride, vit.dimension) == (64, 16, 24)

    def test_at_the_native_size_it_is_as_open_clip_runs_it(self, vit: VitTower) -> None:
        x = random(3, 3, 64, 64)
        with torch.inference_mode():
            assert_close(vit.encode_image(x), vit.visual(x), depth="network")
            listed = vit.visual.forward_intermediates(x, normalize_intermediates=True)["image_intermediates"][-1]
            assert_close(vit.extract_patches(x), listed, depth="network")

    def test_a_native_size_that_is_not_square(self) -> None:
        tower = VitTower(shuffled(lambda: vit_of(image_size=(48, 80))))
        x = random(2, 3, 48, 80)
        with torch.inference_mode():
            assert_close(tower.encode_image(x), tower.visual(x), depth="network")
        assert tower.native == 48

    @pytest.mark.parametrize("changes", [{"no_ln_pre": True}, {"final_ln_after_pool": True}, {"ls_init_value": 0.3}])
    def test_variants_of_the_plain_structure(self, changes: dict[str, Any]) -> None:
        tower = VitTower(shuffled(lambda: vit_of(**changes)))
        x = random(2, 3, 64, 64)
        with torch.inference_mode():
            assert_close(tower.encode_image(x), tower.visual(x), depth="network")

    @pytest.mark.parametrize("path", VIT_PATHS)
    @pytest.mark.parametrize("size", [(64, 64), (48, 112), (70, 35)])
    def test_a_path_gives_a_cell_a_whole_patch(self, vit: VitTower, path: DensePath, size: tuple[int, int]) -> None:
        x = random(2, 3, *size)
        with torch.inference_mode():
            found = vit.encode_dense(x, path)
            cut = vit.encode_dense(x[..., : size[0] // 16 * 16, : size[1] // 16 * 16], path)
        assert found.shape == (2, 24, size[0] // 16, size[1] // 16) and torch.isfinite(found).all()
        assert_close(found, cut, depth="network")

    def test_attention_is_the_last_tokens(self, vit: VitTower) -> None:
        x = random(2, 3, 48, 80)
        with torch.inference_mode():
            projected = (vit.extract_patches(x).permute(0, 2, 3, 1) @ vit.visual.proj).permute(0, 3, 1, 2)
            assert_close(vit.encode_dense(x, "attention"), projected, depth="network")

    @pytest.mark.parametrize("path", ["surgery", "attention"])
    def test_the_class_token_is_the_ordinary_one(self, vit: VitTower, path: DensePath) -> None:
        x = random(2, 3, 64, 64)
        with torch.inference_mode():
            assert_close(vit.extract_tokens(x, path)[:, 0], vit.encode_image(x), depth="network")

    def test_surgery_begins_six_blocks_from_the_end(self, vit: VitTower) -> None:
        """Without the last six output projections and MLPs, it reads what enters the third of eight blocks."""
        tower = VitTower(copy.deepcopy(vit.visual))
        for block in tower.visual.transformer.resblocks[2:]:
            for layer in (block.attn.out_proj, block.mlp.c_proj):
                layer.weight.zero_(), layer.bias.zero_()
        x = random(1, 3, 64, 64)
        with torch.inference_mode():
            assert_close(tower.encode_dense(x, "surgery"), tower.encode_dense(x, "attention"), depth="network")
            for left, block in enumerate(tower.visual.transformer.resblocks[:3], 1):  # an MLP counts before the sixth only
                before = tower.encode_dense(x, "surgery")
                block.mlp.c_proj.bias.add_(random(32, seed=left))
                after = tower.encode_dense(x, "surgery")
                if left > 2:
                    assert_close(after, before, depth="network")
                else:
                    assert float((after - before).abs().max()) > 1e-2

    def test_regions_are_means_of_dense_cells(self, vit: VitTower) -> None:
        x = random(1, 3, 128, 192)
        boxes = torch.tensor([[0.0, 0.0, 96.0, 64.0], [8.0, 8.0, 8.01, 8.01]])
        with torch.inference_mode():
            found, dense = vit.encode_regions(x, boxes, (64, 96)), vit.encode_dense(x, "surgery")[0]
        # 8 px of an image of 64 px in 8 cells: the corner where four cells meet
        # the box is no point: a hundredth of a px
        torch.testing.assert_close(found[1], dense[:, :2, :2].mean((1, 2)), atol=1e-2, rtol=1e-2)
        assert found.shape == (2, 24) and float(F.cosine_similarity(found[0], dense.mean((1, 2)), dim=0)) > 0.97

    def test_what_it_does_not_have(self, vit: VitTower) -> None:
        with pytest.raises(InputError, match="use a CLIP ResNet"):
            vit.extract_conv4(random(1, 3, 64, 64))
        unknown: Any = "surgary"
        with pytest.raises(InputError, match="did you mean 'surgery'"):
            vit.encode_dense(random(1, 3, 64, 64), unknown)
        with pytest.raises(InputError, match="at least 16 px"):
            vit.encode_image(random(1, 3, 8, 64))


class TestPositions:
    def test_each_path_has_its_own_rule_unless_one_is_given(self, resnet: ResNetTower, vit: VitTower) -> None:
        own: dict[DensePath, PositionRule] = {"value": "bicubic", "surgery": "bilinear", "attention": "bicubic"}
        x = random(1, 3, 96, 160)
        with torch.inference_mode():
            for tower in (resnet, vit):
                for path, rule in own.items():
                    others = [wrap_tower(tower.visual, r).encode_dense(x, path) for r in ("bicubic", "bilinear")]
                    found = tower.encode_dense(x, path)
                    assert torch.equal(found, others[rule == "bilinear"])
                    assert torch.equal(*others) == (path == "value" and tower is resnet), "a ResNet's values have no positions"

    def test_zutis_moves_even_the_native_grid(self, vit: VitTower) -> None:
        x = random(1, 3, 64, 64)
        with torch.inference_mode():
            plain, dino, zutis = (
                wrap_tower(vit.visual, rule).extract_patches(x) for rule in ("bicubic", "bicubic+0.1", "bicubic+0.1-always")
            )
        assert torch.equal(plain, dino) and not torch.allclose(plain, zutis, atol=1e-4)

    def test_odd_sizes_change_no_parameter_and_no_later_answer(self, resnet: ResNetTower, vit: VitTower) -> None:
        native = random(1, 3, 128, 128)
        for tower in (resnet, vit):
            before, (whole, dense) = parameters_of(tower), (tower.encode_image(native), tower.encode_dense(native, "surgery"))
            for size in [(32, 32), (96, 224), (160, 64)]:
                tower.encode_image(random(1, 3, *size)), tower.encode_dense(random(1, 3, *size), "surgery")
            after = parameters_of(tower)
            assert all(torch.equal(before[k], after[k]) for k in before)
            assert torch.equal(tower.encode_image(native), whole) and torch.equal(tower.encode_dense(native, "surgery"), dense)


class TestTowerOf:
    def test_the_two_kinds(self, resnet: ResNetTower, vit: VitTower) -> None:
        assert isinstance(wrap_tower(resnet.visual), ResNetTower) and isinstance(wrap_tower(vit.visual), VitTower)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"attentional_pool": True, "attn_pooler_heads": 4}, "an attentional pool"),
            ({"pool_type": "none"}, "'none' pooling"),
            ({"qk_norm": True}, "CustomResidualAttentionBlock"),
            ({"patch_size": (16, 8)}, r"patches of \(16, 8\) px"),
        ],
    )
    def test_other_vits_are_refused(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            wrap_tower(vit_of(**changes))

    def test_other_libraries_towers_are_refused(self) -> None:
        timm = TimmModel("vit_tiny_patch16_224", embed_dim=8, image_size=32)
        with pytest.raises(InputError, match="got TimmModel"):
            wrap_tower(timm)
