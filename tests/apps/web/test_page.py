"""The page in a real browser: names, masks, slider, corrections, export, and what a reload, a kill and a second tab leave."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.support.browser import NO_BROWSER, WITHIN, Served, browse, find_chromium

import annofree

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=NO_BROWSER)

STATIC = Path(annofree.__file__).parent / "apps/web/static"
SCENES = Path(__file__).parents[3] / "examples/scenes"
# one a test, so that they may run in any order
IMAGES = ("names.jpg", "quick.jpg", "tabs.jpg", "reload.jpg", "keys.jpg", "axe.jpg")
ELEPHANT = (0.40, 0.40)  # of the scene's width and height
MOST_WEIGHT = 300_000  # bytes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    images = folder / "scenes"
    images.mkdir()
    for name in IMAGES:
        shutil.copy(SCENES / "orange-and-elephants.jpg", images / name)
    server = Served((str(images), "--out", str(folder / "work"), "--models", "tiny", "--method", "zip"), folder / "log")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browse() as found:
        yield found


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """A browser's profile that lets nothing out but to the server; every request is noted."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()
    assert [url for url in asked if not url.startswith((served.address, "data:", "blob:"))] == []


def open_fresh(context: BrowserContext, served: Served, image: str) -> Page:
    """The page of an image, whatever names were asked before."""
    reply = context.request.put(f"{served.address}api/classes", data={"classes": []}, headers={"X-Annofree": "1"})
    assert reply.ok, reply.text()
    return open_page(context, served, image)


def open_page(context: BrowserContext, served: Served, name: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(WITHIN)
    page.goto(f"{served.address}#image={name}")
    expect(page.locator("#stage")).to_have_attribute("data-image", name)
    return page


def type_names(page: Page, *names: str) -> None:
    for name in names:
        page.fill("#name-input", name)
        page.press("#name-input", "Enter")
        expect(page.locator("#chips")).to_contain_text(name.partition(":")[0])


def list_rows(page: Page) -> Any:
    return page.locator("#list .instance")


def has_said(page: Page, words: str) -> None:
    expect(page.locator("#told")).to_contain_text(words)


def click_image(page: Page, place: tuple[float, float]) -> None:
    """Click at a part of the width and the height of the image, which is square and shown whole."""
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    side = min(stage["width"], stage["height"]) - 40
    left, top = stage["x"] + (stage["width"] - side) / 2, stage["y"] + (stage["height"] - side) / 2
    page.mouse.click(left + place[0] * side, top + place[1] * side)


def read_canvas(page: Page) -> str:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return str(page.evaluate("document.getElementById('canvas').toDataURL()"))


def export_coco(page: Page) -> dict[str, Any]:
    page.click("#open-export")
    with page.expect_download() as coming:
        page.click("#formats a[data-format=coco]")
    held: dict[str, Any] = json.loads(coming.value.path().read_bytes())
    return held


def test_names_masks_slider_correction_export(context: BrowserContext, served: Served) -> None:
    page = open_fresh(context, served, "names.jpg")
    type_names(page, "elephant", "dog: puppy")
    expect(list_rows(page).first).to_be_visible()
    with_masks = read_canvas(page)
    page.keyboard.press("Escape")  # out of the field
    page.keyboard.press("m")
    assert read_canvas(page) != with_masks
    page.keyboard.press("m")
    assert read_canvas(page) == with_masks

    kept = list_rows(page).count()
    page.focus("#score")
    page.keyboard.press("End")
    assert list_rows(page).count() > kept
    page.keyboard.press("Home")
    assert list_rows(page).count() == 0
    page.click("#by-policy")
    assert list_rows(page).count() == kept

    click_image(page, (0.02, 0.98))
    page.keyboard.press("n")
    click_image(page, ELEPHANT)
    expect(page.locator("#take")).to_be_enabled()
    page.keyboard.press("Enter")
    has_said(page, "elephant is added.")
    page.keyboard.press("Escape")
    expect(page.locator("#list .instance.human")).to_have_count(1)

    page.reload()
    expect(page.locator("#list .instance.human")).to_have_count(1)

    served.kill()
    page.click("#list .instance.machine >> nth=0")
    page.keyboard.press("a")
    expect(page.locator("#banner")).to_contain_text("Your last act is kept here")
    served.start()
    has_said(page, "elephant accepted.")
    expect(page.locator("#banner")).to_be_hidden()
    page.reload()
    expect(page.locator("#list .instance.human")).to_have_count(1)
    expect(page.locator("#list .instance.accepted.machine")).to_have_count(1)

    held = export_coco(page)
    (image,) = (row["id"] for row in held["images"] if row["file_name"] == "names.jpg")
    (mine,) = (row for row in held["annotations"] if row["image_id"] == image and row.get("source") == "human")
    x, y, w, h = mine["bbox"]
    assert x < ELEPHANT[0] * 256 < x + w
    assert y < ELEPHANT[1] * 256 < y + h


def test_names_that_change_answer_at_once(context: BrowserContext, served: Served) -> None:
    page = open_fresh(context, served, "quick.jpg")
    type_names(page, "elephant", "kite")  # the models are loaded, and the image is encoded
    expect(page.locator("#busy")).to_be_hidden()
    seconds = min(time_name(page, name) for name in ("orange", "zebra", "bus"))
    print(f"{seconds:.3f} s from new names to the first mask")
    assert seconds < 2  # 0.5 on a machine that does nothing else
    expect(page.locator("#list")).to_contain_text("orange")


def time_name(page: Page, name: str) -> float:
    """Seconds from a new name until its masks are drawn."""
    page.fill("#name-input", name)
    seconds: float = page.evaluate(
        """() => new Promise((done) => {
            const stage = document.getElementById("stage");
            const began = performance.now();
            const settle = () => requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
            new MutationObserver(settle).observe(stage, { attributeFilter: ["data-version"] });
            document.getElementById("names-form").requestSubmit();
        })"""
    )
    expect(page.locator("#busy")).to_be_hidden()
    return seconds


def test_two_tabs(context: BrowserContext, served: Served) -> None:
    page = open_fresh(context, served, "tabs.jpg")
    type_names(page, "elephant")
    other = open_page(context, served, "tabs.jpg")
    expect(list_rows(other).first).to_be_visible()
    page.click("#list .instance.machine >> nth=0")
    page.keyboard.press("x")
    has_said(page, "rejected.")
    has_said(other, "Changed in another tab")

    other.route("**/api/revisions*", lambda route: route.abort())  # it sees nothing of the next act
    page.keyboard.press("Control+z")
    has_said(page, "Undone.")
    other.click("#list .instance.open >> nth=0")
    other.keyboard.press("x")
    has_said(other, "had been changed elsewhere")
    revision = page.get_attribute("#stage", "data-revision")
    expect(other.locator("#stage")).to_have_attribute("data-revision", str(revision))


LOSE_REPLIES = """() => {
    const whole = window.fetch;
    window.fetch = async (path, asked) => {
        const reply = await whole(path, asked);
        if (window.lost && path.endsWith("/acts")) throw new TypeError("the reply is lost");
        return reply;
    };
    window.lost = true;
}"""
"""Acts are saved, but the page does not hear of it."""


def test_a_reload_before_the_reply_is_no_conflict(context: BrowserContext, served: Served) -> None:
    page = open_fresh(context, served, "reload.jpg")
    type_names(page, "elephant")
    page.click("#list .instance >> nth=0")
    page.evaluate(LOSE_REPLIES)
    page.keyboard.press("x")
    expect(page.locator("#banner")).to_contain_text("Your last act is kept here")
    page.evaluate("window.lost = false")
    has_said(page, "rejected.")
    page.keyboard.press("Control+z")
    has_said(page, "Undone.")


def test_by_keys_alone(context: BrowserContext, served: Served) -> None:
    page = open_fresh(context, served, "keys.jpg")
    type_names(page, "elephant")
    page.keyboard.press("Escape")
    before = page.locator("#list .instance.human").count()
    page.keyboard.press("g")
    for keys in ("ArrowLeft ArrowUp", "ArrowRight ArrowRight", "ArrowDown ArrowDown", "ArrowLeft ArrowLeft"):
        for key in keys.split():
            page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    has_said(page, "is added.")
    page.keyboard.press("Escape")
    expect(page.locator("#list .instance.human")).to_have_count(before + 1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("r")
    page.keyboard.type("eleph")
    page.keyboard.press("Enter")
    page.keyboard.press("?")
    expect(page.locator("#keys-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    expect(page.locator("#caption")).not_to_have_text("keys.jpg")
    expect(page.locator("#progress-text")).to_contain_text(f"1 of {len(IMAGES)}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (360, 740)], ids=["desktop", "phone"])
def test_no_serious_finding_of_axe(browser: Browser, served: Served, size: tuple[int, int], scheme: Any) -> None:
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce")
    page = open_page(context, served, "axe.jpg")
    page.evaluate(axe)
    found = examine(page)
    page.keyboard.press("ArrowDown")
    found += examine(page)
    page.keyboard.press("?")
    found += examine(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    context.close()
    assert found == []


def examine(page: Page) -> list[str]:
    result = page.evaluate("axe.run(document)")
    assert len(result["passes"]) > 10
    grave = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in grave]


def test_the_page_is_light() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) <= MOST_WEIGHT
    text = "".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.*"))
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in text
