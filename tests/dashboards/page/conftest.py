import pytest

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render, write_page
from lightning_trainingkit.dashboards.panels import command_center
from tests.dashboards.browser import Page, open_browser


@pytest.fixture(scope="session")
def browser():
    found = open_browser()
    yield found
    found.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of some runs; ``change`` edits what the page knows of them."""

    def open_page(runs, change=lambda data: None, **options):
        data = page_data(runs, command_center(), **options)
        change(data)
        write_page(tmp_path / "page.html", render(data))
        return Page(browser, (tmp_path / "page.html").as_uri())

    return open_page


@pytest.fixture
def phone(browser):
    """Until the test's end the browser has the screen of a phone."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
