"""A real headless Chromium for the tests, Debian's, driven through its own driver."""

import os
import shutil
import time

import pytest

from lightning_trainingkit.dashboards.page.login import login_file

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def open_browser(size=(1400, 1000)):
    """A browser; without Debian's packages chromium and chromium-driver the test is skipped, but not in CI."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        (pytest.fail if "CI" in os.environ else pytest.skip)("needs Debian's packages chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def log_in(browser, server):
    """Open the server's page as ``--open`` does: by the file that only its owner reads."""
    with login_file(server.url, server.login.token) as file:
        browser.get(file.as_uri())
        end = time.monotonic() + 20
        while not (
            browser.current_url == server.url and browser.execute_script("return typeof Plotly !== 'undefined'")
        ):
            assert time.monotonic() < end, browser.page_source[:1000]
            time.sleep(0.05)


class Page:
    """A command center in the browser, as a person sees it: what is drawn, not what was clicked."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get(url)
        self.loaded()

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def loaded(self):
        """Wait for the load, before which the driver returns at times."""
        self.until("return document.readyState === 'complete'")

    def until(self, script, *arguments, seconds=20):
        """Wait until a script returns something true, and give that."""
        end = time.monotonic() + seconds
        while not (found := self.js(script, *arguments)):
            assert time.monotonic() < end, script
            time.sleep(0.05)
        return found

    def settle(self):
        """Wait until nothing in view waits to be drawn."""
        stale = "[...panels.values()].some((panel) => panel.visible && panel.stale)"
        self.until(f"return later === null && !drawing && !{stale}")

    def show(self, panel):
        """Scroll to a panel and wait until it is drawn."""
        self.js("panels.get(arguments[0]).figure.scrollIntoView({block: 'center'})", panel)
        self.until("const p = panels.get(arguments[0]); return p.visible && !p.stale && !drawing", panel)

    def lines(self, panel):
        """Colour and path of each line that the panel's picture holds."""
        self.show(panel)
        return self.js(
            "return [...panels.get(arguments[0]).figure.querySelectorAll('.scatterlayer path.js-line')]"
            ".map((path) => [path.style.stroke, path.getAttribute('d')])",
            panel,
        )

    def dots(self, panel):
        """Colours of the points in the panel's picture."""
        self.show(panel)
        return self.js(
            "return [...panels.get(arguments[0]).figure.querySelectorAll('.scatterlayer .points path')]"
            ".map((path) => path.style.fill)",
            panel,
        )

    def texts(self, panel):
        """All words in the panel's picture and below it."""
        self.show(panel)
        return self.js(
            "return [...panels.get(arguments[0]).figure.querySelectorAll('svg text, figcaption')]"
            ".map((text) => text.textContent)",
            panel,
        )

    def choose(self, control, value):
        """Set a control as a person does, and wait for the drawing."""
        self.js(
            "const c = document.getElementById(arguments[0]);"
            "if (c.type === 'checkbox') { c.click(); } else {"
            "c.value = arguments[1]; c.dispatchEvent(new Event('input')); c.dispatchEvent(new Event('change')); }",
            control,
            value,
        )
        self.settle()

    def press(self, panel, text):
        """Press one of a panel's buttons."""
        self.js(
            "[...panels.get(arguments[0]).figure.querySelectorAll('button')]"
            ".find((button) => button.textContent === arguments[1]).click()",
            panel,
            text,
        )
        self.settle()

    def problems(self):
        """What the console says (but of pictures drawn without a graphics card) and what was asked of a network."""
        said = [entry["message"] for entry in self.browser.get_log("browser") if "GPU stall" not in entry["message"]]
        asked = self.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        return [*said, *(name for name in asked if not name.startswith(("data:", "blob:")))]
