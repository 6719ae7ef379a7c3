"""Draw docs/page.png, docs/page-correct.png and docs/page-phone.png: the page on the scenes of examples, in Chromium.

uv run python docs/make_screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import PIL.Image
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.support.browser import Served, browse  # noqa: E402

FIRST = "market.jpg"
ASKED = ("market.jpg", "oranges.jpg", "orange-and-elephants.jpg", "elephants.jpg", "breakfast.jpg")
NAMES = "apple, banana, orange: tangerine, elephant, carrot, broccoli"
_COLORS, _WITHIN = 160, 300_000  # of a PNG; ms


def make_screenshots(server: Served, browser: Browser, out: Path) -> None:
    """Draw the three images into a folder."""
    page = open_page(server, browser, 1240, 780, "light")
    for name in ASKED:
        show(page, server, name)
    page.keyboard.press("Space")
    show(page, server, FIRST)
    page.keyboard.press("ArrowDown")
    save(page, out / "page.png")

    page = open_page(server, browser, 1240, 780, "dark")
    show(page, server, "oranges.jpg")
    page.keyboard.press("n")
    page.keyboard.press("3")
    area = page.locator("#stage").bounding_box()
    assert area is not None  # noqa: S101 -- it is there
    page.mouse.click(area["x"] + 0.62 * area["width"], area["y"] + 0.8 * area["height"])
    page.wait_for_selector("#take:enabled", timeout=_WITHIN)
    save(page, out / "page-correct.png")

    page = open_page(server, browser, 390, 780, "light")
    show(page, server, FIRST)
    page.keyboard.press("ArrowDown")
    save(page, out / "page-phone.png")


def open_page(server: Served, browser: Browser, width: int, height: int, scheme: str) -> Page:
    """The page in a window of its own."""
    viewport = {"width": width, "height": height}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(_WITHIN)
    page.goto(server.address)
    return page


def show(page: Page, server: Served, name: str) -> None:
    """Show an image, and wait for its masks."""
    page.goto("about:blank")
    page.goto(f"{server.address}#image={name}")
    page.wait_for_selector(f"#stage[data-image='{name}']")
    page.wait_for_selector("#busy", state="hidden")
    page.focus("#stage")


def save(page: Page, path: Path) -> None:
    """Write what is seen, in few colors."""
    page.wait_for_timeout(1500)  # thumbnails
    shot = PIL.Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.quantize(_COLORS, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {shot.width} x {shot.height}, {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Serve the scenes, and draw."""
    out = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        asked = ("--models", "tiny", "--classes", NAMES, "--who", "ann")
        server = Served((str(ROOT / "examples/scenes"), "--out", f"{folder}/work", *asked), log)
        try:
            server.start()
            with browse() as browser:
                make_screenshots(server, browser, out)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
