import threading
import time

import pytest

from lightning_trainingkit.dashboards.page.login import login_file
from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render
from lightning_trainingkit.dashboards.page.serving import PageServer
from lightning_trainingkit.dashboards.panels import command_center
from tests.dashboards.browser import log_in, open_browser
from tests.dashboards.made import grid

pytestmark = pytest.mark.slow

STATUS = "return performance.getEntriesByType('navigation')[0].responseStatus"


@pytest.fixture(scope="module")
def browser():
    found = open_browser()
    yield found
    found.quit()


@pytest.fixture
def server():
    data = page_data(grid(), command_center())
    with PageServer(lambda: data, lambda found: render(found, follow=0.2), seconds=0.0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def history(browser):
    found = browser.execute_cdp_cmd("Page.getNavigationHistory", {})
    return [entry["url"] for entry in found["entries"]]


def test_the_login_file_ends_on_the_page_and_leaves_no_token_in_the_history(browser, server):
    log_in(browser, server)
    assert browser.execute_script(STATUS) == 200
    cookies = browser.get_cookies()
    assert [(each["name"], each["httpOnly"], each["sameSite"], each["path"]) for each in cookies] == [
        (f"trainingkit-{server.server_port}", True, "Strict", "/")
    ]
    assert browser.execute_script("return document.cookie") == ""
    addresses = history(browser)
    assert addresses[-1] == server.url
    assert server.login.token not in " ".join(addresses) + browser.page_source
    made = browser.execute_script("return document.getElementById('made').textContent")
    time.sleep(0.6)  # the page asks with its cookie
    assert browser.execute_script("return document.getElementById('made').textContent") == made
    browser.refresh()
    assert browser.execute_script(STATUS) == 200
    assert [entry for entry in browser.get_log("browser") if "403" in entry["message"]] == []


def test_another_profile_gets_the_form_and_comes_in_with_the_token_alone(server):
    other = open_browser()
    try:
        other.get(server.url)
        assert other.execute_script(STATUS) == 403
        assert other.execute_script("return typeof Plotly") == "undefined"
        for token in ("wrong", server.login.token):
            other.find_element("name", "token").send_keys(token)
            other.find_element("tag name", "button").click()
            until(lambda: other.execute_script("return document.readyState") == "complete")
            if token == "wrong":
                until(lambda: "This is not the token." in other.page_source)
                assert other.get_cookies() == []
        until(lambda: other.execute_script("return typeof Plotly") == "object")
        assert other.current_url == server.url
        assert server.login.token not in " ".join(history(other))
    finally:
        other.quit()


def test_a_page_of_another_server_on_this_machine_reads_nothing(browser, server, tmp_path):
    log_in(browser, server)

    script = (
        f"fetch('{server.url}', {{credentials: 'include', mode: arguments[0]}})"
        ".then((answer) => answer.text(), (error) => 'refused').then(arguments[1])"
    )
    with PageServer(dict, lambda _: "<title>other</title>") as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with login_file(other.url, other.login.token) as file:
                browser.get(file.as_uri())
                until(lambda: browser.title == "other")
            assert [browser.execute_async_script(script, mode) for mode in ("cors", "no-cors")] == ["refused"] * 2
            frame = (
                "const f = document.createElement('iframe'); f.src = arguments[0]; document.documentElement.append(f)"
            )
            browser.get_log("browser")
            browser.execute_script(frame, server.url)
            until(lambda: any("frame" in entry["message"].lower() for entry in browser.get_log("browser")))
        finally:
            other.shutdown()
            thread.join()
