"""SAM's "segment everything" beside the generator that was released with SAM: what both find, and processor seconds.

    uv pip install --target elsewhere --no-deps segment-anything
    PYTHONPATH=elsewhere uv run python benchmarks/sam_everything.py examples/scenes --limit 3 --json everything.json

Both have the same random weights, of a SAM with the true decoder and a narrow image encoder, from one layout into the other
key by key; what they find means nothing, so thresholds are taken from what they guess.  Compared are the count, the IoU and
the guess of each mask with its nearest, and the order; ties may come in another one.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import SamConfig, SamModel

from annofree.detections.proposals import build_point_grid
from annofree.features.sam import Sam
from annofree.hub.cards import Card
from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.ops.rle import compute_rle_ious, encode_rles
from annofree.protocols import Sureness
from annofree.structures import Detections, Image
from annofree.testing.timing import print_json

CONSTANT = 10.0  # of a channel of the upscaled image, beyond where its activation bends
WIDTH, DEPTH, HEADS, INNER = 64, 2, 2, 256  # of the narrow encoder, and the true width of the decoder
NAMES = (
    (r"^image_encoder\.patch_embed\.proj", "vision_encoder.patch_embed.projection"),
    (r"^image_encoder\.blocks", "vision_encoder.layers"),
    (r"^image_encoder\.neck\.0", "vision_encoder.neck.conv1"),
    (r"^image_encoder\.neck\.1", "vision_encoder.neck.layer_norm1"),
    (r"^image_encoder\.neck\.2", "vision_encoder.neck.conv2"),
    (r"^image_encoder\.neck\.3", "vision_encoder.neck.layer_norm2"),
    (r"^image_encoder", "vision_encoder"),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0", ".mask_embed.conv1"),
    (r"\.mask_downscaling\.1", ".mask_embed.layer_norm1"),
    (r"\.mask_downscaling\.3", ".mask_embed.conv2"),
    (r"\.mask_downscaling\.4", ".mask_embed.layer_norm2"),
    (r"\.mask_downscaling\.6", ".mask_embed.conv3"),
    (r"\.output_upscaling\.0", ".upscale_conv1"),
    (r"\.output_upscaling\.1", ".upscale_layer_norm"),
    (r"\.output_upscaling\.3", ".upscale_conv2"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0", r"\1.proj_in"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2", r"\1.proj_out"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1", r"\1.layers.0"),
)
"""Keys of the released layout, and what they are called in that of transformers."""


def build_released(side: int, seed: int) -> Any:
    """A SAM of the released package whose guesses and logits vary as those of a trained one do."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling import Sam as Released

    torch.manual_seed(seed)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    encoder = ImageEncoderViT(
        img_size=side, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, out_chans=INNER, norm_layer=norm,
        use_rel_pos=True, window_size=14, global_attn_indexes=(DEPTH - 1,),
    )  # fmt: skip
    prompts = PromptEncoder(INNER, (side // 16,) * 2, (side,) * 2, mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=INNER, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(transformer_dim=INNER, transformer=transformer)
    model = Released(encoder, prompts, decoder).eval()
    with torch.no_grad():
        encoder.pos_embed.normal_(std=0.5)
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 300
        decoder.iou_prediction_head.layers[-1].weight *= 10
        decoder.output_upscaling[3].bias[0] = CONSTANT
    return model


def lower_logits(model: Any, image: Image, share: float) -> None:
    """Leave a ``share`` of the pixels in masks, so that boxes differ: one channel is constant, and gets a negative weight."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(image.pixels)
    points = torch.from_numpy(build_point_grid(4, model.image_encoder.img_size * np.ones(2, int)))[:, None]
    _, _, logits = predictor.predict_torch(points, torch.ones(len(points), 1), return_logits=True)
    with torch.no_grad():
        for k, mlp in enumerate(model.mask_decoder.output_hypernetworks_mlps[1:]):
            mlp.layers[-1].bias[0] -= np.quantile(logits[:, k].numpy(), 1 - share) / CONSTANT


def convert(model: Any, side: int, folder: Path) -> Sam:
    """The same weights as annofree reads them."""
    config = SamConfig(
        vision_config={
            "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": side,
            "output_channels": INNER, "global_attn_indexes": [DEPTH - 1], "window_size": 14, "mlp_dim": 4 * WIDTH,
        },
        prompt_encoder_config={"image_size": side, "image_embedding_size": side // 16},
    )  # fmt: skip
    twin, weights = SamModel(config), {}
    for key, value in model.state_dict().items():
        for old, new in NAMES:
            key = re.sub(old, new, key)
        weights[key] = value
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights["shared_image_embedding.positional_embedding"]
    twin.load_state_dict({k: v for k, v in weights.items() if k not in ("pixel_mean", "pixel_std")})
    twin.save_pretrained(folder)
    return Sam(folder, card=Card("random-sam", "transformers SamModel", "S2", "none", "nothing", "none", files={}))


def read_image(path: Path, longest: int) -> Image:
    """An image, made smaller where ``longest`` is not 0."""
    picture = PIL.Image.open(path).convert("RGB")
    if longest:
        picture.thumbnail((longest, longest))
    return Image(np.asarray(picture), path.name)


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and its answer."""
    start = time.process_time()
    answer = call()
    return time.process_time() - start, answer


def choose_thresholds(sam: Sam, image: Image, points: int, share: float) -> Sureness:
    """Guesses that about ``share`` of the masks are above, and a stability that about half of those reach."""
    (embedding,) = sam.embed([image])
    drawn = sam.predict_masks(embedding, points=build_point_grid(points, image.size), multimask=True)
    quality = float(drawn.quality.quantile(1 - share))
    assert drawn.stability is not None
    steady = drawn.stability[(drawn.quality > quality) & (drawn.stability > 0)]
    return Sureness("all", quality, float(steady.median()))


def compare(found: Detections, expected: list[dict[str, Any]]) -> dict[str, Any]:
    """Each expected mask beside the found one that is most like it."""
    expected = [one for one in expected if one["area"]]  # it lists empty masks where all are stable enough
    theirs = encode_rles(np.stack([one["segmentation"] for one in expected]))
    guesses = np.array([one["predicted_iou"] for one in expected]).clip(0, 1)
    ious, moved = compute_rle_ious(theirs, found.rles), np.abs(guesses[:, None] - found.scores)
    nearest = (ious - moved).argmax(1)  # many masks of random weights are alike
    rows = np.arange(len(expected))
    return {
        "masks": [len(found), len(expected)],
        "least IoU": round(float(ious[rows, nearest].min()), 4),
        "mean IoU": round(float(ious[rows, nearest].mean()), 6),
        "most that a guess moved": float(moved[rows, nearest].max()),
        "in another place": int((nearest != rows).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--side", type=int, default=1024, help="px of SAM's square")
    parser.add_argument("--points", type=int, default=8, help="a side")
    parser.add_argument("--share", type=float, default=0.4, help="of the masks whose guess is good enough")
    parser.add_argument("--area", type=float, default=0.3, help="of an image that a mask covers")
    parser.add_argument("--nms", type=float, default=1.0)
    parser.add_argument("--crop-layers", type=int, default=0)
    parser.add_argument("--crop-fewer", type=int, default=1, help="by which points a side are divided from layer to layer")
    parser.add_argument("--min-region", type=int, default=0, help="px of holes and islands that are cleaned away, if smaller")
    parser.add_argument("--longest", type=int, default=0, help="px that images are made smaller to")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from segment_anything import SamAutomaticMaskGenerator

    torch.set_num_threads(1)
    model, rows = build_released(args.side, 0), []
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(p for p in args.images.iterdir() if p.suffix in (".jpg", ".png"))[: args.limit]
        images = [read_image(path, args.longest) for path in paths]
        lower_logits(model, images[0], args.area)
        sam = convert(model, args.side, Path(folder))
        for image in images:
            sure = choose_thresholds(sam, image, args.points, args.share)
            settings = SamEverythingSettings(
                args.points, sure=sure, nms=args.nms, crop_layers=args.crop_layers, crop_fewer=args.crop_fewer,
                min_region=args.min_region,
            )  # fmt: skip
            ours = SamEverything(sam, settings)
            theirs = SamAutomaticMaskGenerator(
                model, args.points, pred_iou_thresh=sure.quality, stability_score_thresh=sure.stability,
                box_nms_thresh=args.nms, crop_n_layers=args.crop_layers, crop_n_points_downscale_factor=args.crop_fewer,
                min_mask_region_area=args.min_region,
            )  # fmt: skip
            fast, (found,) = time_call(partial(ours.discover, [image]))
            slow, expected = time_call(partial(theirs.generate, image.pixels))
            seconds = {"seconds": [round(fast, 2), round(slow, 2)], "times as fast": round(slow / fast, 2)}
            rows.append({"image": image.id, "size": image.size, **compare(found, expected), **seconds})
    ratios = sorted(row["times as fast"] for row in rows)
    print_json({"images": rows, "times as fast, median": round(float(np.median(ratios)), 2), "least": ratios[0]}, args.json)


if __name__ == "__main__":
    main()
