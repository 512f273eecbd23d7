"""The page of a report in a real headless Chromium: screens, print, contrast, and markup that stays text."""

from __future__ import annotations

import itertools
import shutil

import pytest
from report_rows import HOSTILE, rows

from pushforward.data import load_image_sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium).")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright).")
    with sync.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(table_guard, image_guard, network_guard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    from report_rows import labeled

    x, y = labeled(100, seed=7)
    x[:3] = 9.0
    table_guard.report(rows(300, seed=3, shift=9), title=HOSTILE, name=HOSTILE, show_rows=True).save(
        folder / "table.html"
    )
    image_guard.report(load_image_sample("mnist")[:60], name="digits").save(folder / "images.html")
    network_guard.report((x, y), name="batch").save(folder / "network.html")
    return folder


@pytest.fixture
def page(browser):
    """A page that fails the test for an error, a message, or a request for anything but the file and what is inside it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    found, problems = context.new_page(), []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda message: problems.append(message.text))
    found.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
    yield found
    assert problems == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["table", "images", "network"])
def test_nothing_is_wider_than_the_screen_and_text_has_contrast(page, files, name, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"file://{files}/{name}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ratios = page.evaluate(
        """() => {
        const part = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
        const light = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number); return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
        const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)') && c !== 'transparent') return c; } return 'rgb(255,255,255)'; };
        return [...document.querySelectorAll('h1, h2, h3, p, td, th, dt, dd, li, b, span, code, caption, figcaption, text')].filter((e) => e.textContent.trim() && e.getClientRects().length && !e.closest('.hidden')).map((e) => {
          const s = getComputedStyle(e); const [a, b] = [light(e.tagName === 'text' ? s.fill : s.color), light(ground(e))].sort((x, y) => y - x);
          return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]; });
        }"""
    )
    assert min(ratios)[0] >= 4.5, min(ratios)  # WCAG 2.2, AA
    assert page.evaluate("window.hacked") is None


def test_structure_for_readers_of_the_screen(page, files):
    for name in ("table", "images", "network"):
        page.goto(f"file://{files}/{name}.html")
        unnamed = page.evaluate(
            "() => [...document.querySelectorAll('svg, img')].filter((e) => !(e.getAttribute('aria-label') || e.alt)).length"
        )
        assert unnamed == 0
        levels = page.evaluate("() => [...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        bare = page.evaluate(
            "() => [...document.querySelectorAll('table')].filter((t) => !t.querySelector('thead th[scope=col]')).length"
        )
        assert bare == 0
        assert page.get_attribute("html", "lang") == "en"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


def test_markup_is_shown_as_text(page, files):
    page.goto(f"file://{files}/table.html")
    assert page.inner_text("h1") == HOSTILE
    assert page.title() == HOSTILE
    assert HOSTILE in page.inner_text("main")
    assert page.evaluate("document.querySelectorAll('script, img').length") == 0
    assert page.evaluate("window.hacked") is None


def test_print_is_light_and_complete(page, files, tmp_path):
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(f"file://{files}/images.html")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") >= 2
    page.set_viewport_size({"width": 700, "height": 1000})  # about the width of a sheet
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_a_notebook_shows_the_page_in_a_frame(page, table_guard):
    report = table_guard.report(rows(100, seed=4), title="in a notebook")
    page.set_content(f"<style>body {{ color: red }} h1 {{ display: none }}</style>{report._repr_html_()}")
    frame = page.frame_locator("iframe")
    assert frame.locator("h1").inner_text() == "in a notebook"
    assert frame.locator("body").evaluate("(e) => getComputedStyle(e).color") != "rgb(255, 0, 0)"
