"""The page in a real browser: headless Chromium, driven through its debugging pipe with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.viewer_runs import FPS, WIDTH, disc_box, write_run

from pixelis.serve.viewer import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
TIMEOUT_S = 60


class Browser:
    """One Chromium with one tab, spoken to in Chrome's debugging protocol over a pair of pipes."""

    def __init__(self, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def place() -> None:  # Chromium reads descriptor 3 and writes descriptor 4
            low, high = os.dup(to_read), os.dup(to_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(20)

    def _message(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def call(self, method: str, **params) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **({"sessionId": self._session} if self._session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)
            if answer.get("method") == "Page.javascriptDialogOpening":  # an alert would hold the page up for ever
                self._number += 1
                closing = {
                    "id": self._number,
                    "method": "Page.handleJavaScriptDialog",
                    "params": {"accept": True},
                    "sessionId": self._session,
                }
                os.write(self._write, json.dumps(closing).encode() + b"\0")

    def run(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str):
        """The expression's value once it is true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def open(self, page: Path, *, address: str = "", width: int = 1440, height: int = 900, scheme: str = "light") -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri() + (f"#{address}" if address else ""))
        self.wait("document.readyState === 'complete' && document.querySelector('.step') !== null")
        self.settle()

    def settle(self) -> None:
        """Until two frames have been painted: layout observers have run by then."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def key(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))
        self.settle()

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[dict]:
        """Console errors and warnings, exceptions, refused content and dialogs since the page was opened."""
        self.settle()
        bad = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            is_log = method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning")
            is_console = method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert")
            if is_log or is_console or method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                bad.append(event)
        return bad

    def requests(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return write_page(write_run(folder / "run"), folder / "run.html")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return write_page(write_run(folder / "run", hostile=True, with_video=False), folder / "run.html")


def kinds(browser: Browser) -> list[str]:
    return browser.run("[...document.querySelectorAll('.canvas svg [data-kind]')].map((e) => e.dataset.kind)")


def drawn_box(browser: Browser) -> tuple[float, float]:
    """Left edge and width of the first solid box, in pixels of the medium."""
    return tuple(
        browser.run(
            "(() => { const svg = document.querySelector('.canvas svg'); const r = svg.querySelector('rect[data-kind=box]');"
            f"const k = {WIDTH} / svg.viewBox.baseVal.width; return [r.getAttribute('x') * k, r.getAttribute('width') * k]; }})()"
        )
    )


def test_page_is_quiet_and_asks_for_nothing(browser, page):
    browser.open(page)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in browser.requests() if url.startswith("file:")]) == 1
    assert browser.run("document.title") == "run – Pixelis"


def test_hostile_text_is_shown_and_never_run(browser, hostile_page):
    browser.open(hostile_page)
    for key in "123456e0":
        browser.key(key)
    assert browser.run("document.title") == "run – Pixelis"
    assert browser.complaints() == []
    assert browser.run("document.querySelectorAll('#app script, #app iframe, img[src=x], [onerror]').length") == 0
    assert browser.run("document.querySelector('.answer-line .value').textContent").startswith("</script><script>document.title='owned'")
    assert browser.run("document.querySelector('.answer-line .value').textContent").endswith("$title <!--")


def test_policy_refuses_an_injected_script_and_a_picture_from_outside(browser, page):
    browser.open(page)
    script = "const e = document.createElement('script'); e.text = 'document.title = 1'; document.body.append(e);"
    browser.run(f"{{ try {{ {script} }} catch (refused) {{}} }}")
    browser.run("{ const e = document.createElement('img'); e.src = 'file:///nowhere.png'; document.body.append(e); }")
    browser.settle()
    assert browser.run("document.title") == "run – Pixelis"
    assert browser.complaints() != []  # the refusal is what the console speaks of


def test_steps_change_what_is_drawn(browser, page):
    browser.open(page)
    browser.key("1")
    assert kinds(browser).count("box") == 2  # halo and colour
    assert "point" in kinds(browser)
    left, width = drawn_box(browser)
    assert (left, width) == pytest.approx((120, 161), abs=0.6)
    inside = (
        "(x, y) => { const c = document.querySelector('.canvas canvas');"
        "return c.getContext('2d').getImageData(x / 640 * c.width, y / 480 * c.height, 1, 1).data[3]; }"
    )
    assert browser.run(f"({inside})(200, 200)") == 96  # the disc's centre is tinted
    assert browser.run(f"({inside})(130, 130)") == 0  # the corner of its box is not
    browser.key("j")
    assert "dim" in kinds(browser)
    assert browser.run(f"({inside})(200, 200)") == 0
    browser.key("ArrowRight")
    assert kinds(browser).count("span") == 2
    assert browser.run("document.querySelector('.canvas svg .label').textContent") == "EXIT"
    browser.key("k")
    assert browser.run("document.querySelector('.step.is-on').id") == "step-2"
    browser.key("0")
    assert browser.run("document.querySelectorAll('.step.is-on').length") == 0
    assert kinds(browser).count("box") == 6  # SEG, ZOOM and PROP; halo and colour each


def test_address_leads_to_the_nearest_frame(browser, page):
    browser.open(page, address="t=1&s=2&f=31")
    assert browser.run("document.querySelector('.controls output').textContent").startswith("3.10 s")
    browser.open(page, address="t=1&s=2&f=4000")
    assert browser.run("document.querySelector('.controls output').textContent").startswith("3.90 s")
    browser.open(page, address="t=77&s=99&f=x&theme=dark")
    assert browser.run("document.querySelector('h1').textContent").startswith("Ein zweiter")
    assert browser.complaints() == []


def test_a_row_of_text_points_at_its_box(browser, page):
    browser.open(page, address="t=0&s=3")
    browser.run("document.querySelector('.step.is-on .found > div').dispatchEvent(new Event('pointerenter'))")
    assert kinds(browser).count("pointer") == 2
    browser.run("document.querySelector('.step.is-on .found > div').dispatchEvent(new Event('pointerleave'))")
    assert "pointer" not in kinds(browser)


def test_scrubber_moves_the_frame_and_the_track(browser, page):
    browser.open(page, address="t=1&s=1")
    first = browser.run("document.querySelector('.canvas img').src")
    assert browser.run("document.querySelector('.controls output').textContent").startswith("0.50 s")
    assert drawn_box(browser) == pytest.approx((disc_box(5).x0, 100), abs=0.6)
    browser.run("{ const r = document.querySelector('.controls input'); r.value = 12; r.dispatchEvent(new Event('input')); }")
    browser.settle()
    assert browser.run("document.querySelector('.canvas img').src") != first
    assert browser.run("document.querySelector('.controls output').textContent").startswith(f"{12 / FPS:.2f} s")
    assert drawn_box(browser) == pytest.approx((disc_box(12).x0, 100), abs=0.6)
    browser.run("{ const r = document.querySelector('.controls input'); r.value = 20; r.dispatchEvent(new Event('input')); }")
    browser.settle()
    assert "box" not in kinds(browser)  # the track is not visible there
    assert "path" in kinds(browser)


def test_space_plays_and_stops(browser, page):
    browser.open(page, address="t=1&s=2")
    before = browser.run("document.querySelector('.controls input').value")
    browser.key(" ")
    browser.wait(f"document.querySelector('.controls input').value !== '{before}'")
    browser.key(" ")
    held = browser.run("document.querySelector('.controls input').value")
    time.sleep(0.4)
    assert browser.run("document.querySelector('.controls input').value") == held
    assert browser.complaints() == []


def test_trajectories_by_key_and_by_search(browser, page):
    browser.open(page)
    assert browser.run("document.querySelector('h1').textContent").startswith("What does the sign")
    browser.key("ArrowDown")
    assert browser.run("document.querySelector('h1').textContent").startswith("Which way")
    browser.key("/")
    for letter in "versuch":
        browser.key(letter)
    assert browser.run("document.querySelectorAll('.item').length") == 1
    browser.key("Escape")
    browser.key("ArrowDown")
    assert browser.run("document.querySelector('h1').textContent").startswith("Ein zweiter")
    assert browser.run("document.querySelector('.answer-line .value').textContent") == "nach rechts"


def test_theme_follows_the_system_and_the_key(browser, page):
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, scheme="dark")
    dark = browser.run(background)
    browser.key("t")
    light = browser.run(background)
    assert dark == "rgb(16, 18, 23)"
    assert light == "rgb(245, 246, 248)"


def test_help_opens_and_closes(browser, page):
    browser.open(page)
    browser.key("?")
    assert browser.run("document.querySelector('dialog').open") is True
    browser.run("document.querySelector('dialog button').click()")
    assert browser.run("document.querySelector('dialog').open") is False


@pytest.mark.parametrize("width", [360, 800, 1440])
def test_nothing_is_wider_than_the_window(browser, hostile_page, width):
    browser.open(hostile_page, width=width)
    browser.key("e")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('.body').scrollWidth") <= width


def test_missing_media_are_said_in_place(browser, tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    for blob in (run / "blobs").iterdir():
        blob.unlink()
    browser.open(write_page(run, tmp_path / "run.html"))
    assert browser.complaints() == []
    assert "does not hold sign.png" in browser.run("document.querySelector('.absent').textContent")
    browser.key("2")
    assert "is missing from the run" in browser.run("document.querySelector('.step.is-on .gone').textContent")
    assert kinds(browser).count("box") == 2  # evidence without the medium


def test_text_has_contrast_in_both_themes(browser, page):
    """Every visible text of the page against its own ground: WCAG AA asks for 4.5."""
    measure = """(() => {
      const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
      const linear = (v) => (v <= 10.31 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4);
      const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
      const ground = (e) => {
        for (; e; e = e.parentElement) {
          const c = rgb(getComputedStyle(e).backgroundColor);
          if (c.length < 4 || c[3] > 0.99) return c.slice(0, 3);
        }
        return [255, 255, 255];
      };
      const poor = [];
      const walk = document.createTreeWalker(document.getElementById('app'), NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.textContent.trim() || e.closest('svg') || !e.checkVisibility()) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
        if ((a + .05) / (b + .05) < 4.5) poor.push([e.className, e.textContent.slice(0, 30), (a + .05) / (b + .05)]);
      }
      return poor; })()"""
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        browser.key("e")
        assert browser.run(measure) == []
