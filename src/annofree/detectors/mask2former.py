"""Mask2Former (Cheng et al., CVPR 2022), of the DETR family: each query predicts one mask and its class.

    image -> ResNet -> pixel decoder (deformable attention) -> three levels ------> query decoder (masked attention)
                                                              -> map of stride 4 --x-- a vector and a name of each query

Decoders, losses and first weights are those of transformers, in plain PyTorch; the ResNet is that of the other detectors.
As in the authors' code, zeros around an image are looked at, too, and learned to hold nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as parts

from annofree.detectors.backbones import Backbone, check_norm
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.config import DetectorConfig
from annofree.detectors.matching import average_count
from annofree.detectors.preprocessing import normalize_image, pad_batch
from annofree.detectors.region_detector import check_targets
from annofree.detectors.types import DetectionTargets, RawDetections
from annofree.errors import InputError

__all__ = ["Mask2Former", "build_transformers_config", "select_best_queries"]

_GROUPS = 32  # of the group norms in the pixel decoder
_CELL = 4  # px, of the map that masks are read from
_POINTS = 112**2  # that masks are compared at, the paper's, at 1024 px


class Mask2Former(DetectorNetwork):
    """A ResNet, ``backbone``, and ``heads``: what makes masks of its four stages.

    There are no proposals and no NMS: queries learn not to repeat each other, so ``nms`` does not apply.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.backbone = _Stages(config)
        self.heads = _Heads(build_transformers_config(config), self.backbone.widths)

    def forward(self, pixels: Sequence[Tensor], targets: Sequence[DetectionTargets]) -> dict[str, Tensor]:
        """Name the losses of images (3, H, W) in 0 .. 1 with what there is to find; see ``DetectorNetwork``.

        They are weighted as in the paper, class 2, mask 5 and dice 5; ``loss_earlier`` sums those of all layers but the last.
        Raises InputError outside of training, and for invalid targets.
        """
        if not self.training:
            raise InputError("expected a detector in training mode to give losses; call train() first, or detect()")
        check_norm(self.config.norm, self.device)
        check_targets(pixels, targets, len(self.config.names))
        inputs = self._read([p.to(self.device) for p in pixels])
        masks = [_padded(t.masks.to(inputs), (inputs.shape[2], inputs.shape[3])) for t in targets]
        return self.heads.compute_losses(self.backbone(inputs), masks, [t.labels.to(inputs.device) for t in targets])

    def find(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """Find things in images of one working size; see ``DetectorNetwork``.

        The score is the class probability times the mean mask probability.
        """
        logits, masks = self.run_queries(self._read(images))
        each = zip(logits, masks, images, sizes, strict=True)
        return [select_best_queries(one, of_one, (p.shape[1], p.shape[2]), size, self.config) for one, of_one, p, size in each]

    def run_queries(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer a batch (B, 3, H, W), normalized, its sides multiples of 32, with the logits of Q queries.

        They are those of the K names and of nothing, (B, Q, K + 1), and of masks, (B, Q, H / 4, W / 4).
        """
        logits, masks = self.heads(self.backbone(inputs))
        return logits[-1], masks[-1]

    def _read(self, pixels: Sequence[Tensor]) -> Tensor:
        return pad_batch([normalize_image(p, self.config.mean, self.config.std) for p in pixels])


def build_transformers_config(config: DetectorConfig) -> Mask2FormerConfig:
    """Convert the configuration for transformers; raises InputError for unsupported sizes.

    Masks are compared at as many points as a square image has cells, and not more than in the paper.
    """
    if config.channels % _GROUPS or config.channels % config.heads:
        raise InputError(
            f"expected channels of a Mask2Former that are a multiple of {_GROUPS} and of its heads, "
            f"got {config.channels} channels and {config.heads} heads"
        )
    return Mask2FormerConfig(
        num_labels=len(config.names),
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_feedforward_dim=max(config.ffn // 2, 1),  # the paper's share: 1024 to 2048
        dim_feedforward=config.ffn,
        encoder_layers=config.pixel_layers,
        decoder_layers=config.query_layers,
        num_attention_heads=config.heads,
        num_queries=config.queries,
        train_num_points=min(_POINTS, (max(config.side, 32) // _CELL) ** 2),
    )


class _Stages(Backbone):
    """The four stages of the ResNet, (B, ``widths``, H/s, W/s), without a pyramid: the pixel decoder has its own."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        inner: Any = self.fpn.inner_blocks
        self.widths = [block[0].in_channels for block in inner]
        del self.fpn

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the stages, in float32 also where the convolutions ran in half precision."""
        return {name: stage.float() for name, stage in self.compute_stages(pixels).items()}


class _Criterion(parts.Mask2FormerLoss):  # type: ignore[misc]
    """Transformers' losses; the mean number of masks is over all processes also where accelerate did not start them."""

    def get_num_masks(self, class_labels: Sequence[Tensor], device: torch.device) -> Tensor:
        return average_count(torch.cat(list(class_labels)).to(device))


class _Heads(parts.Mask2FormerPreTrainedModel):  # type: ignore[misc]
    """Both decoders and what is predicted; a model of transformers, so that its weights start as they do there."""

    def __init__(self, config: Mask2FormerConfig, widths: Sequence[int]) -> None:
        super().__init__(config)
        self.pixel_decoder = parts.Mask2FormerPixelDecoder(config, list(widths))
        self.query_decoder = parts.Mask2FormerTransformerModule(config.feature_size, config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.weights = {"cross_entropy": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
        self.criterion = _Criterion(config, self.weights)
        # children first; post_init would leave out parts without weights of their own, for this model is not in transformers
        self.apply(self._init_weights)

    def forward(self, stages: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits of names and of masks, those of each layer."""
        read = self.pixel_decoder(list(stages.values()))
        answered = self.query_decoder(read.multi_scale_features, read.mask_features)
        logits = [self.class_predictor(one.transpose(0, 1)).float() for one in answered.intermediate_hidden_states]
        return logits, [one.float() for one in answered.masks_queries_logits]

    def compute_losses(self, stages: dict[str, Tensor], masks: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        """Return the weighted losses, the last layer's taken first: points drawn are those of transformers."""
        *before, final = zip(*self(stages), strict=True)
        last, *earlier = (
            {name: weight * of_layer[f"loss_{name}"] for name, weight in self.weights.items()}
            for of_layer in (self.criterion(m, c, masks, labels) for c, m in (final, *before))
        )
        losses = {"loss_class": last["cross_entropy"], "loss_mask": last["mask"], "loss_dice": last["dice"]}
        if earlier:
            losses["loss_earlier"] = torch.stack([one for layer in earlier for one in layer.values()]).sum()
        return losses


def select_best_queries(
    logits: Tensor, masks: Tensor, read: tuple[int, int], size: tuple[int, int], config: DetectorConfig
) -> RawDetections:
    """Make the best queries what is found in an image of ``size`` that was read at the size ``read``.

    ``logits`` (Q, K + 1) of names and of nothing, ``masks`` (Q, h, w) logits of cells of 4 px, of which ``read`` is the part
    from the top left corner.  A query may predict several classes, as in the authors' code.
    """
    kinds = logits.shape[1] - 1
    scores, order = logits.softmax(1)[:, :kinds].flatten().sort(descending=True, stable=True)
    order = order[: config.detections][scores[: config.detections] > config.score_floor]
    queries, back = torch.unique(order // kinds, return_inverse=True)
    binary, sure = _stretched(masks[queries], read, size)
    scores, labels = scores[: len(order)] * sure[back], order % kinds
    kept = torch.where((scores > config.score_floor) & binary.flatten(1).any(1)[back])[0]
    kept = kept[scores[kept].sort(descending=True, stable=True).indices]
    chosen = binary[back[kept]]
    return RawDetections(_tight(chosen), labels[kept], scores[kept], chosen)


def _stretched(masks: Tensor, read: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logits (N, h, w) of cells to masks (N, H, W) of an image, and the mean probability over each (N), 0 over none."""
    binary = torch.zeros((len(masks), *size), dtype=torch.bool, device=masks.device)
    sure = masks.new_zeros(len(masks))
    for i, cells in enumerate(masks):  # one by one, for floats of many masks of a large image are too many
        whole = F.interpolate(cells[None, None], scale_factor=float(_CELL), mode="bilinear", align_corners=False)
        fine = F.interpolate(whole[..., : read[0], : read[1]], size=size, mode="bilinear", align_corners=False)[0, 0]
        binary[i] = fine > 0
        sure[i] = (fine.sigmoid() * binary[i]).sum() / binary[i].sum().clamp(min=1)
    return binary, sure


def _tight(masks: Tensor) -> Tensor:
    """Boxes (N, 4), end-exclusive, around masks (N, H, W) none of which is empty."""
    boxes: Tensor = masks_to_boxes(masks) + masks.new_tensor([0, 0, 1, 1], dtype=torch.float32)
    return boxes


def _padded(masks: Tensor, size: tuple[int, int]) -> Tensor:
    return F.pad(masks, (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))
