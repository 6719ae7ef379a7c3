"""The emoji world: scenes composed of color emoji whose names are COCO categories.

A scene is drawn back to front, so the visible mask of every object is exact.  Object names, COCO category ids,
captions and color parts come with it, and everything follows from one seed.  It is a demonstration and a
benchmark that runs on any machine, not a substitute for photographs.

Conventions: images (H, W, 3) uint8 RGB; ``layout`` (H, W) holds 0 for background and i + 1 for object i, so a
visible mask is ``layout == i + 1``; sizes are fractions of the scene's side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter, ImageFont
from skimage.measure import label

from annofree.errors import InputError, MissingError

__all__ = ["CATEGORIES", "SPLITS", "Scene", "SceneObject", "Split", "Sprite", "World", "find_font"]

Split = Literal["plain", "cluttered", "touching", "single", "empty", "mixed"]
SPLITS: tuple[Split, ...] = ("plain", "cluttered", "touching")
"""The splits that are scored; ``single``, ``empty`` and ``mixed`` exist for training."""

# COCO category id, name, emoji seen in training, emoji kept out of training (a new look of a known class).
# Left out for want of a fitting emoji, or because the emoji paints scenery as well: bench, fire hydrant, parking
# meter, baseball glove, dining table, oven, sink, remote, skis, snowboard, surfboard, hair drier and three kitchen machines.
_TABLE: tuple[tuple[int, str, str, str], ...] = (
    (1, "person", "🧍🚶🏃💃🤸", "🕺"), (2, "bicycle", "🚲", ""), (3, "car", "🚗🚙🏎", "🚘"),
    (4, "motorcycle", "🏍🛵", ""), (5, "airplane", "✈🛩", ""), (6, "bus", "🚌🚍", "🚎"),
    (7, "train", "🚂🚆🚄🚃", "🚅"), (8, "truck", "🚚🚛", "🛻"), (9, "boat", "⛵🚤🛶⛴", "🛥"),
    (10, "traffic light", "🚥🚦", ""), (13, "stop sign", "🛑", ""), (16, "bird", "🐦🦅🦆🦜🐧🕊🐓", "🦉"),
    (17, "cat", "🐈🐱", "😺"), (18, "dog", "🐕🐶🦮", "🐩"), (19, "horse", "🐎🐴", ""), (20, "sheep", "🐑🐏", ""),
    (21, "cow", "🐄🐮🐂", ""), (22, "elephant", "🐘", ""), (23, "bear", "🐻", ""), (24, "zebra", "🦓", ""),
    (25, "giraffe", "🦒", ""), (27, "backpack", "🎒", ""), (28, "umbrella", "☂🌂", "☔"), (31, "handbag", "👜👛", ""),
    (32, "tie", "👔", ""), (33, "suitcase", "🧳💼", ""), (34, "frisbee", "🥏", ""),
    (37, "sports ball", "⚽🏀🏈⚾🏐", "🥎"), (38, "kite", "🪁", ""), (39, "baseball bat", "🏏", ""),
    (41, "skateboard", "🛹", ""), (43, "tennis racket", "🎾🏸", ""), (44, "bottle", "🍾🧴🍼", ""),
    (46, "wine glass", "🍷🍸", "🥂"), (47, "cup", "☕🍵🥤", ""), (48, "fork", "🍴", ""), (49, "knife", "🔪🗡", ""),
    (50, "spoon", "🥄", ""), (51, "bowl", "🥣🍲", "🍜"), (52, "banana", "🍌", ""), (53, "apple", "🍎🍏", ""),
    (54, "sandwich", "🥪", ""), (55, "orange", "🍊", ""), (56, "broccoli", "🥦", ""), (57, "carrot", "🥕", ""),
    (58, "hot dog", "🌭", ""), (59, "pizza", "🍕", ""), (60, "donut", "🍩", ""), (61, "cake", "🎂🧁", "🍰"),
    (62, "chair", "🪑💺", ""), (63, "couch", "🛋", ""), (64, "potted plant", "🪴", ""), (65, "bed", "🛏", ""),
    (70, "toilet", "🚽", ""), (72, "tv", "📺", ""), (73, "laptop", "💻", ""), (74, "mouse", "🖱", ""),
    (76, "keyboard", "⌨", ""), (77, "cell phone", "📱", ""), (84, "book", "📕📘📙📖", "📗"),
    (85, "clock", "🕰⏰", "🕒"), (86, "vase", "⚱🏺", ""), (87, "scissors", "✂", ""), (88, "teddy bear", "🧸", ""),
    (90, "toothbrush", "🪥", ""),
)  # fmt: skip

CATEGORIES: dict[int, str] = {id_: name for id_, name, _, _ in _TABLE}
"""COCO category id to name, for the 65 categories of the world."""

_PLURALS = {
    "person": "people", "bus": "buses", "sheep": "sheep", "wine glass": "wine glasses", "knife": "knives",
    "sandwich": "sandwiches", "couch": "couches", "mouse": "mice", "scissors": "scissors", "toothbrush": "toothbrushes",
    "broccoli": "broccoli",
}  # fmt: skip
_COUNTS = ("no", "one", "two", "three", "four", "five", "six")
_TEMPLATES = ("a photo of {}", "a picture of {}", "{}", "a scene with {}", "there is {} here")
_EMPTY = ("a photo of an empty background", "an empty background", "nothing", "a picture of nothing")

_FONTS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
)
_FONT_SIZE = 109  # the one size of the bitmap font, in px
_PHOTOS = (
    "brick.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
_MIN_VISIBLE = 0.0015  # of the scene's area; an object of which less shows is no longer an object

RGB = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sprite:
    """One emoji as an image.

    ``pixels`` (H, W, 4) uint8 RGBA; ``parts`` (H, W) uint8, 0 outside and 1.. for its regions of one color;
    ``held_out`` when it never appears in training.
    """

    emoji: str
    category_id: int
    held_out: bool
    pixels: RGB
    parts: Labels


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene: its COCO category and emoji."""

    category_id: int
    emoji: str
    held_out: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with its exact truth.

    ``image`` (H, W, 3) uint8; ``layout`` (H, W) uint8, i + 1 where object i is visible; ``parts`` (H, W) uint8,
    color part of that object; ``caption`` a synthetic caption.
    """

    image: RGB
    layout: Labels
    parts: Labels
    objects: tuple[SceneObject, ...]
    caption: str
    split: str
    background: str

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """The visible pixels of one object, (H, W) bool."""
        mask: npt.NDArray[np.bool_] = self.layout == index + 1
        return mask


def find_font(font: Path | None = None) -> Path:
    """Return the color emoji font to draw with: the one given, or the one the system has.

    Raises MissingError if there is none, with two ways to install it.
    """
    if font is not None and not font.is_file():
        raise InputError(f"expected a font file, but there is none at {font}")
    found = font or next((Path(f) for f in _FONTS if Path(f).is_file()), None)
    if found is None:
        raise MissingError(
            "drawing emoji scenes needs the Noto Color Emoji font, and it is not installed: install Debian's "
            "fonts-noto-color-emoji, or pass --font /path/to/NotoColorEmoji.ttf"
        )
    return found


def _color_parts(pixels: RGB) -> Labels:
    """Split a sprite into connected regions of one of six colors, each at least 3 % of it."""
    solid = pixels[..., 3] > 127
    colors = np.asarray(PILImage.fromarray(np.ascontiguousarray(pixels[..., :3])).quantize(6)).astype(np.int32) + 1
    regions = np.asarray(label(colors * solid, connectivity=1))
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    kept = np.flatnonzero(areas >= 0.03 * solid.sum())
    lookup = np.zeros(len(areas), np.uint8)
    lookup[kept] = np.arange(1, len(kept) + 1)
    parts: Labels = lookup[regions]
    return parts


def _draw_sprite(font: ImageFont.FreeTypeFont, emoji: str, category_id: int, held_out: bool) -> Sprite:
    canvas = PILImage.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise InputError(f"the emoji font has no image for {emoji}; expected Noto Color Emoji")
    pixels = np.array(canvas.crop(box))
    return Sprite(emoji, category_id, held_out, pixels, _color_parts(pixels))


@functools.cache
def _photos() -> tuple[RGB, ...]:
    """The photographs of scikit-image, without those that show one of our classes."""
    folder = resources.files("skimage.data")
    photos = []
    for name in _PHOTOS:
        with resources.as_file(folder / name) as path:
            photos.append(np.asarray(PILImage.open(path).convert("RGB")))
    return tuple(photos)


def _resized(pixels: RGB, side: int) -> RGB:
    return np.asarray(PILImage.fromarray(pixels).resize((side, side), PILImage.Resampling.BILINEAR))


def _noise(rng: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """Noise at several scales, (side, side, 3), about -1 .. 1."""
    total = np.zeros((side, side, 3), np.float32)
    for cells, weight in ((3, 0.5), (8, 0.3), (32, 0.2)):
        grid = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += weight * (_resized(grid, side).astype(np.float32) / 127.5 - 1)
    return total


def _background(rng: np.random.Generator, kind: str, side: int) -> RGB:
    """One background, (side, side, 3) uint8; kinds are plain, gradient, noise and photo."""
    color = rng.uniform(40, 235, 3)
    if kind == "plain":
        field = np.broadcast_to(color, (side, side, 3))
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:side, 0:side] / side - 0.5
        t = (0.5 + np.cos(angle) * x + np.sin(angle) * y)[..., None]
        field = color * (1 - t) + rng.uniform(40, 235, 3) * t
    elif kind == "noise":
        field = color + rng.uniform(20, 90) * _noise(rng, side)
    else:
        photos = _photos()
        photo = photos[rng.integers(len(photos))]
        crop = int(min(photo.shape[:2]) * rng.uniform(0.3, 1.0))
        top, left = (int(rng.integers(0, n - crop + 1)) for n in photo.shape[:2])
        field = _resized(photo[top : top + crop, left : left + crop], side).astype(np.float32)
        field = field * rng.uniform(0.6, 1.2, 3) + rng.uniform(-30, 30, 3)
    return np.clip(field, 0, 255).astype(np.uint8)


def _posed(rng: np.random.Generator, sprite: Sprite, longest: float) -> tuple[RGB, Labels]:
    """One sprite in a pose of its own: size, aspect, flip, rotation, brightness and color."""
    height, width = sprite.parts.shape
    aspect = rng.uniform(0.88, 1.14)
    scale = longest / max(height, width * aspect)
    size = max(4, round(width * aspect * scale)), max(4, round(height * scale))
    angle = float(rng.normal(0, 8) if rng.random() < 0.8 else rng.uniform(-60, 60))
    pixels, parts = PILImage.fromarray(sprite.pixels), PILImage.fromarray(sprite.parts)
    if rng.random() < 0.5:
        pixels, parts = (p.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT) for p in (pixels, parts))
    pixels = pixels.resize(size, PILImage.Resampling.BILINEAR).rotate(angle, PILImage.Resampling.BILINEAR, expand=True)
    parts = parts.resize(size, PILImage.Resampling.NEAREST).rotate(angle, PILImage.Resampling.NEAREST, expand=True)
    rgba = np.array(pixels)
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3)
    rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8)
    return rgba, np.asarray(parts)


class _Canvas:
    """A canvas that a scene is painted on, back to front."""

    def __init__(self, image: RGB) -> None:
        self.image = image.astype(np.float32)
        self.layout: Labels = np.zeros(image.shape[:2], np.uint8)
        self.parts: Labels = np.zeros(image.shape[:2], np.uint8)

    def paint(self, index: int, rgba: RGB, parts: Labels, center: tuple[float, float], shadow: float) -> None:
        """Lay object ``index`` over what is there, centered on (y, x), after its soft contact shadow."""
        h, w = parts.shape[0], parts.shape[1]
        top, left = round(center[0] - h / 2), round(center[1] - w / 2)
        drop = max(1, h // 20)
        blurred = PILImage.fromarray(rgba[..., 3]).filter(ImageFilter.BoxBlur(drop))
        self._blend(np.zeros(3, np.float32), np.asarray(blurred) * np.float32(shadow / 255), top + drop, left)
        self._blend(rgba[..., :3].astype(np.float32), rgba[..., 3] * np.float32(1 / 255), top, left)
        window, inner = self._windows(top, left, h, w)
        solid = rgba[..., 3][inner] > 127
        self.layout[window][solid] = index + 1
        self.parts[window][solid] = parts[inner][solid]

    def _windows(self, top: int, left: int, h: int, w: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        height, width = self.layout.shape[0], self.layout.shape[1]
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))

    def _blend(self, color: npt.NDArray[np.float32], alpha: npt.NDArray[np.float32], top: int, left: int) -> None:
        window, inner = self._windows(top, left, alpha.shape[0], alpha.shape[1])
        a = alpha[inner][..., None]
        target = self.image[window]
        target += a * ((color[inner] if color.ndim == 3 else color) - target)


@dataclass(frozen=True)
class _Recipe:
    """What a split draws; ranges are inclusive, and all of it is ours."""

    # how many classes a scene has
    classes: tuple[int, int]
    # how many instances each of them has
    instances: tuple[int, int]
    # the side of an instance, as a fraction of the scene's side
    size: tuple[float, float]
    # how likely an instance lies beside the one of its class before it
    neighbours: float
    # the kinds of backgrounds that a scene may have
    backgrounds: tuple[str, ...]


_EASY = ("plain", "gradient", "noise")
_RECIPES: dict[str, _Recipe] = {
    "plain": _Recipe((1, 3), (1, 4), (0.22, 0.5), 0.6, _EASY),
    "cluttered": _Recipe((2, 4), (1, 4), (0.18, 0.42), 0.6, ("photo",)),
    "touching": _Recipe((1, 2), (2, 4), (0.22, 0.42), 1.0, _EASY),
    "mixed": _Recipe((1, 3), (1, 4), (0.18, 0.5), 0.6, (*_EASY, "photo")),
    "single": _Recipe((1, 1), (1, 1), (0.35, 0.95), 0.0, (*_EASY, "photo")),
    "empty": _Recipe((0, 0), (0, 0), (0.2, 0.5), 0.0, (*_EASY, "photo")),
}
_MAX_OBJECTS = 9


def _phrase(name: str, count: int, rng: np.random.Generator) -> str:
    """'an orange', 'two elephants' or, as often, just 'elephants'."""
    if count == 1:
        return name if name in ("scissors", "broccoli") else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    plural = _PLURALS.get(name, name + "s")
    return f"{_COUNTS[count]} {plural}" if rng.random() < 0.5 else plural


def _caption(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> str:
    """A caption for a scene with these visible objects."""
    if not objects:
        return str(rng.choice(_EMPTY))
    ids = [o.category_id for o in objects]
    phrases = [_phrase(CATEGORIES[id_], min(ids.count(id_), 6), rng) for id_ in rng.permutation(sorted(set(ids)))]
    listing = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return str(rng.choice(_TEMPLATES)).format(listing)


class World:
    """Draws scenes of the emoji world, each from (seed, index, split) alone.

    ``held_out`` is the chance that an object of a class with a kept-out sprite wears it: 0 for training.

    Raises MissingError without the font.
    """

    def __init__(self, font: Path | None = None, held_out: float = 0.0) -> None:
        drawn = ImageFont.truetype(str(find_font(font)), _FONT_SIZE)
        self.held_out = held_out
        self.sprites: dict[int, list[Sprite]] = {
            id_: [_draw_sprite(drawn, e, id_, False) for e in seen] + [_draw_sprite(drawn, e, id_, True) for e in kept]
            for id_, _, seen, kept in _TABLE
        }

    def draw_scenes(self, count: int, seed: int, split: Split, side: int = 256) -> Iterator[Scene]:
        """Yield scenes 0 .. count - 1 of a seed; scene i does not depend on how many are drawn."""
        for index in range(count):
            yield self.draw_scene(np.random.default_rng([seed, index, crc32(split.encode())]), split, side)

    def draw_scene(self, rng: np.random.Generator, split: Split, side: int = 256) -> Scene:
        """Draw one scene of ``side`` x ``side`` px."""
        recipe = _RECIPES[split]
        n_classes = int(rng.integers(recipe.classes[0], recipe.classes[1] + 1))
        ids = rng.choice(list(CATEGORIES), n_classes, replace=False)
        cast = [int(i) for i in ids for _ in range(rng.integers(recipe.instances[0], recipe.instances[1] + 1))]
        return self.compose(rng, cast[:_MAX_OBJECTS], split, side)

    def compose(self, rng: np.random.Generator, cast: list[int], split: Split, side: int = 256) -> Scene:
        """Draw a scene that shows one object for each category id in ``cast``."""
        recipe = _RECIPES[split]
        kind = str(rng.choice(recipe.backgrounds))
        canvas = _Canvas(_background(rng, kind, side))
        sprites = [self._sprite(rng, id_) for id_ in cast]
        base = {id_: rng.uniform(*recipe.size) for id_ in dict.fromkeys(cast)}
        crowd = min(1.0, 2.6 / max(1, len(cast)) ** 0.5)
        sizes = [float(np.clip(base[i] * rng.uniform(0.85, 1.15) * crowd, 0.12, 0.95)) * side for i in cast]
        centers = _places(rng, cast, sizes, recipe.neighbours, side)
        for index in rng.permutation(len(cast)):
            rgba, parts = _posed(rng, sprites[index], sizes[index])
            canvas.paint(int(index), rgba, parts, centers[index], shadow=rng.uniform(0.1, 0.45))
        return _finished(rng, canvas, sprites, split, kind)

    def _sprite(self, rng: np.random.Generator, category_id: int) -> Sprite:
        looks = self.sprites[category_id]
        kept = [s for s in looks if s.held_out]
        if kept and rng.random() < self.held_out:
            return kept[rng.integers(len(kept))]
        seen = [s for s in looks if not s.held_out]
        return seen[rng.integers(len(seen))]


def _places(
    rng: np.random.Generator, cast: list[int], sizes: list[float], neighbors: float, side: int
) -> list[tuple[float, float]]:
    """Choose a center (y, x) in px for each object: beside its last sibling, or where it covers least."""
    centers: list[tuple[float, float]] = []
    for i, (id_, size) in enumerate(zip(cast, sizes, strict=True)):
        margin = 0.45 * size
        sibling = i - 1 if i and cast[i - 1] == id_ and rng.random() < neighbors else None
        best, best_cover = (side / 2, side / 2), np.inf
        for _ in range(12):
            if sibling is None:
                at = rng.uniform(margin, side - margin, 2) if side > 2 * margin else np.full(2, side / 2)
            else:
                angle = rng.normal(0, 0.5) + (np.pi if rng.random() < 0.5 else 0)
                reach = rng.uniform(0.78, 1.0) * (size + sizes[sibling]) / 2
                at = np.array(centers[sibling]) + reach * np.array([np.sin(angle), np.cos(angle)])
                at = np.clip(at, margin, side - margin) if side > 2 * margin else np.full(2, side / 2)
            cover = sum(
                max(0.0, 0.75 * (size + sizes[j]) / 2 - float(np.hypot(at[0] - y, at[1] - x))) ** 2
                for j, (y, x) in enumerate(centers)
            )
            if cover < best_cover:
                best, best_cover = (float(at[0]), float(at[1])), cover
            if cover == 0:
                break
        centers.append(best)
    return centers


def _finished(rng: np.random.Generator, canvas: _Canvas, sprites: list[Sprite], split: str, kind: str) -> Scene:
    """Drop barely visible objects, renumber the rest from one, and write the caption."""
    areas = np.bincount(canvas.layout.ravel(), minlength=len(sprites) + 1)[1:]
    shown = np.flatnonzero(areas >= _MIN_VISIBLE * canvas.layout.size)
    lookup = np.zeros(len(sprites) + 1, np.uint8)
    lookup[shown + 1] = np.arange(1, len(shown) + 1)
    objects = tuple(SceneObject(s.category_id, s.emoji, s.held_out) for s in (sprites[i] for i in shown))
    image = np.clip(np.rint(canvas.image), 0, 255).astype(np.uint8)
    return Scene(image, lookup[canvas.layout], canvas.parts, objects, _caption(rng, objects), split, kind)
