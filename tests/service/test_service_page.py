"""The page in a real headless Chromium: what an operator sees and does, with mouse and keyboard, and XSS that stays text."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pyarrow as pa
import pytest
from service_helpers import NORMAL, STRANGE, Server

from pushforward import Guard
from pushforward.service.store import Store
from pushforward.service.store.eventlog import Event, append_events, event_ids

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
TOKEN = "admin-token-0123456789"
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def playwright_expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


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
def hostile_guard(tmp_path_factory) -> Path:
    """A guard with a column whose name is markup."""
    path = tmp_path_factory.mktemp("guard") / "hostile.safetensors"
    rng = np.random.default_rng(0)
    table = pa.table({HOSTILE: rng.normal(size=200), "b": rng.choice([HOSTILE, "x"], 200)})
    Guard(0.05, n_estimators=1, max_steps=10, random_state=0).fit(table).save(path)
    return path


@pytest.fixture(scope="module")
def page_server(guard_file, hostile_guard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "tokens").write_text(f"admin:{TOKEN}\nread:{TOKEN}-read\n")
    arguments = (
        str(guard_file),
        str(hostile_guard),
        "--store-inputs",
        "--durability",
        "strict",
        "--token-file",
        "tokens",
    )
    running = Server(folder, *arguments)
    running.client.headers["authorization"] = f"Bearer {TOKEN}"
    yield running
    running.stop()


@pytest.fixture
def page(browser, page_server):
    """A page that is signed in, and that fails the test for an error of a script or a request to another place."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda m: problems.append(m.text) if m.type == "error" and "404" not in m.text else None)
    found.on("request", lambda r: None if r.url.startswith((page_server.url, "data:")) else problems.append(r.url))
    found.set_default_timeout(20_000)
    found.goto(page_server.url + "/login")
    found.fill("#token", TOKEN)
    found.click("text=Sign in >> nth=-1")
    found.wait_for_selector("#tiles .tile")
    yield found
    assert problems == []
    context.close()


def test_signing_in(browser, page_server):
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_server.url + "/?model=orders&hours=1")
    assert "/login" in page.url
    page.fill("#token", "a wrong token")
    page.press("#token", "Enter")
    page.wait_for_selector("#wrong")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    page.wait_for_selector("#tiles .tile")
    assert page.url == page_server.url + "/?model=orders&hours=1"
    cookie = next(c for c in context.cookies() if c["name"] == "pushforward_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert TOKEN not in cookie["value"]
    page.click("text=Sign out")
    page.wait_for_selector("#token")
    context.close()


@pytest.mark.parametrize(
    "target", ["//evil.example/", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(page_server, target):
    answer = httpx.post(page_server.url + "/login", data={"token": TOKEN, "next": target})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"


def test_a_problem_is_shown_as_long_as_it_lasts(page):
    expect, problem = playwright_expect, page.locator("#problem")
    page.evaluate("post('/feedback', { id: '0'.repeat(32), label: 'normal' })")
    expect(problem).to_contain_text("there is no such event")
    page.wait_for_timeout(2500)  # states arrive each second
    expect(problem).to_be_visible()
    page.click("#search button")
    expect(problem).to_be_hidden()
    for _ in range(2):
        page.evaluate("source.onmessage({ data: JSON.stringify({ ...state, store: 'the disk is full' }) })")
    assert "the disk is full" in problem.inner_text()
    expect(problem).to_be_hidden()  # with the next state


def test_signing_in_leads_to_the_whole_address(page_server):
    asked = "/event/a%20b?model=a%26b&hours=1"
    sent = httpx.get(page_server.url + asked, headers={"accept": "text/html"}).headers["location"]
    target = parse_qs(urlsplit(sent).query)["next"][0]
    answer = httpx.post(page_server.url + "/login", data={"token": TOKEN, "next": target})
    assert answer.headers["location"] == asked


def test_a_session_of_the_page_is_not_open_to_other_sites(page_server):
    cookie = httpx.post(page_server.url + "/login", data={"token": TOKEN}).headers["set-cookie"].partition(";")[0]
    own, foreign = {"cookie": cookie}, {"cookie": cookie, "origin": "http://evil.example"}
    assert httpx.get(page_server.url + "/events", headers=own).status_code == 200
    body = {"id": "0" * 32, "label": "normal"}
    assert httpx.post(page_server.url + "/feedback", json=body, headers=own).status_code == 404
    assert httpx.post(page_server.url + "/feedback", json=body, headers=foreign).status_code == 403
    assert httpx.post(page_server.url + "/v2/repository/models/orders/unload", headers=foreign).status_code == 403


def test_an_alarm_appears_by_itself_and_is_labeled(page, page_server):
    page.wait_for_selector("#tiles .tile")
    row = page_server.score(NORMAL, STRANGE)[1]
    entry = page.wait_for_selector(f'#alarms li[data-id="{row["id"]}"]')
    assert "ratio" in entry.inner_text()
    assert "ratio = -30" in entry.inner_text()
    page.click(f'#alarms li[data-id="{row["id"]}"] button:has-text("anomaly")')
    page.wait_for_selector(f'#alarms li[data-id="{row["id"]}"] button[aria-pressed="true"]:has-text("anomaly")')
    assert page_server.client.get(f"/events/{row['id']}").json()["label"] == "anomaly"
    for chart in ("rate", "drift", "p"):
        label = page.get_attribute(f"#{chart} svg", "aria-label")
        assert any(letter.isdigit() for letter in label), label


def test_the_page_of_an_event(page, page_server):
    row = page_server.score(STRANGE, request="order 99")[0]
    page.goto(f"{page_server.url}/event/{row['id']}")
    text = page.inner_text("main")
    for word in ("Alarm", "order 99", "ratio", "-30.0", "version 1"):
        assert word in text
    page.fill("#note", HOSTILE)
    page.click("button[data-label=normal]")
    page.wait_for_selector("#feedback li")
    page.reload()
    assert HOSTILE in page.inner_text("#feedback")
    assert page.evaluate("window.hacked") is None
    page.goto(f"{page_server.url}/event/{'0' * 32}")
    assert "No such event" in page.inner_text("h1")


def test_markup_in_names_and_values_stays_text(page, page_server):
    answer = page_server.client.post(
        "/score", params={"model": "hostile"},
        json={"rows": [{HOSTILE: 99.0, "b": HOSTILE}], "request": HOSTILE[:60], "reasons": True},
    )  # fmt: skip
    row = answer.json()["rows"][0]
    assert row["alarm"]
    page.goto(f"{page_server.url}/?model=hostile")
    page.wait_for_selector(f'#alarms li[data-id="{row["id"]}"]')
    assert HOSTILE in page.inner_text("#alarms")
    page.goto(f"{page_server.url}/event/{row['id']}")
    assert HOSTILE in page.inner_text("main")
    assert page.evaluate("window.hacked") is None


def test_search_and_filter_by_keyboard(page, page_server):
    row = page_server.score(STRANGE, request="needle 7")[0]
    page.focus("input[name=text]")
    page.keyboard.type("needle")
    page.keyboard.press("Enter")
    rows = page.locator("#events tbody tr")
    playwright_expect(rows).to_have_count(1, timeout=20_000)
    assert "needle 7" in page.inner_text("#events tbody")
    page.select_option("select[name=alarm]", "false")
    page.click("text=Search")
    playwright_expect(rows).to_have_count(0, timeout=20_000)
    page.keyboard.press("Tab")
    focused = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert focused != "none"
    assert row["id"]


def test_every_control_has_a_name_and_headings_are_in_order(page):
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=hidden]), select, a, svg, img')].filter((e) => {
        const label = e.labels && e.labels.length ? e.labels[0].innerText : '';
        return !(e.innerText || label || e.getAttribute('aria-label') || e.hasAttribute('alt'));
        }).map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert unnamed == []
    assert page.get_attribute("html", "lang") == "en"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen_and_text_has_contrast(page, page_server, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page_server.score(NORMAL, STRANGE)
    page.wait_for_selector("#alarms li")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ratios = page.evaluate(
        """() => {
        const part = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
        const light = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number); return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
        const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)') && c !== 'transparent') return c; } return 'rgb(255,255,255)'; };
        return [...document.querySelectorAll('h2, p, td, th, button, a, b, span, label')].filter((e) => e.innerText && e.offsetParent && !e.closest('.hidden')).map((e) => {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), e.innerText.slice(0, 30)]; });
        }"""
    )
    assert min(ratios)[0] >= 4.5, min(ratios)  # WCAG 2.2, AA


def test_an_empty_service_says_what_to_do_and_the_command_works(browser, start, guard_file):
    server = start(guard_file)
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#empty:not([hidden])")
    command = page.inner_text("#curl")
    assert command.startswith(f"curl '{server.url}/score?model=orders'")
    assert json.loads(command.split("-d '")[1].rstrip("'"))["rows"][0].keys() == NORMAL.keys()
    import subprocess

    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["rows"]
    page.wait_for_selector("#empty", state="hidden")
    server.kill()
    page.wait_for_selector("#live:has-text('No connection')")
    context.close()


def test_switching_the_version_on_the_page(browser, start, guard_file, other_guard_file, tmp_path):
    file = tmp_path / "orders.safetensors"
    shutil.copy(guard_file, file)
    server = start(file)
    shutil.copy(other_guard_file, file)
    assert server.client.post("/v2/repository/models/orders/load").json()["version"] == "2"
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.click("text=Use this version")
    page.wait_for_selector("#versions tr:has(td:text-is('1')) .badge.good")
    assert server.client.post("/score", json=[NORMAL]).json()["model_version"] == "1"
    context.close()


@pytest.mark.slow
def test_the_page_with_a_million_events(browser, start, guard_file, store_url):
    store = Store(store_url, durable=False)
    store.migrate()
    from pushforward.service.store.modelbook import register

    entry = register(store, "orders", guard_file)
    rng, now = np.random.default_rng(0), time.time()
    for block in range(200):
        p = rng.integers(1, 102, 5000) / 101
        append_events(
            store,
            [
                Event(i, now - 86400 * (1 - (block * 5000 + k) / 1e6), "orders", "1", entry.digest, "needle" if block == k == 0 else None, 1.0 - float(np.log(p[k])),
                      float(p[k]), bool(p[k] <= 0.05), None, None)
                for k, i in enumerate(event_ids(5000))
            ],
        )  # fmt: skip
    store.close()
    server = start(guard_file, "--store", store_url)
    for path in ("/api/overview", "/events?limit=20", "/events?alarm=true&limit=20"):
        begin = time.monotonic()
        assert server.client.get(path).status_code == 200
        assert time.monotonic() - begin < 3.0, path
    page = browser.new_context().new_page()
    page.goto(server.url)
    page.wait_for_selector("#tiles .tile b:has-text('99')", timeout=30_000)
    page.fill("input[name=text]", "needle")  # the oldest event
    page.click("text=Search")
    rows = page.locator("#events tbody tr")
    playwright_expect(rows).to_have_count(1, timeout=60_000)
    assert "needle" in page.inner_text("#events tbody")
    assert page.inner_text("#found").startswith("1 event")
