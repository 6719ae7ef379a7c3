"""Class names of datasets, and the prompts that papers use for them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BACKGROUND", "COCA_NAMES", "COCO_IDS", "COCO_NAMES", "VOC_NAMES", "VOC_SPELLINGS"]

BACKGROUND = "background"

VOC_NAMES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of Pascal VOC, as its files spell them; index 0 of its label maps is the background."""

VOC_SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "voc": {},
    "clip-diy": {"pottedplant": "potted plant", "tvmonitor": "tv/monitor"},
    "zutis": {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv/monitor"},
    "maskclip": {
        "aeroplane": "airplane", "diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor",
    },
}  # fmt: skip
"""VOC's name to a paper's, by paper, where they differ; GroupViT's and TCL's configurations ask VOC's own."""

COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO."""

_COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS: tuple[int, ...] = tuple(id_ for id_ in range(1, 91) if id_ not in _COCO_UNUSED)
"""COCO's category id of each name in ``COCO_NAMES``: 1 to 90 without the ten that were never released."""

COCA_NAMES: tuple[str, ...] = (
    "Accordion", "UAV", "Yellow duck", "alarm clock", "avocado", "backpack", "baseball", "beer bottle", "belt", "binoculars",
    "boots", "butterfly", "calculator", "camel", "camera", "candle", "chopsticks", "clover", "dice", "dolphin", "doughnut",
    "dumbbell", "eggplant", "faucet", "fishing rod", "frisbee", "gift box", "glasses", "globe", "glove", "guitar", "hammer",
    "hammock", "handbag", "harp", "hat", "headphone", "helicopter", "high heels", "hourglass", "ice cream", "key", "lollipop",
    "macaroon", "microphone", "minions", "moon", "persimmon", "pigeon", "pillow", "pine cone", "pineapple", "pocket watch",
    "poker", "potato", "pumpkin", "rabbit", "rocking horse", "roller-skating", "rolling pin", "soap bubble", "squirrel",
    "stethoscope", "sticky note", "stool", "strawberry", "sunflower", "tablet", "teddy bear", "thermometer", "tomato",
    "towel", "toy car", "typewriter", "violin", "waffles", "watering can", "watermelon", "wheelchair", "whisk",
)  # fmt: skip
"""The 80 classes of CoCA, which are its folders' names in case-sensitive order."""
