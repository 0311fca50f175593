import http.client
import socket
import threading
import time

import pytest

from lightning_trainingkit.dashboards.page.serving import PageServer


class Source:
    def __init__(self):
        self.data, self.collected, self.drawn = {"runs": 1}, 0, 0

    def collect(self):
        self.collected += 1
        return dict(self.data)

    def draw(self, data):
        self.drawn += 1
        return f"page {data['runs']}"


@pytest.fixture
def served():
    source = Source()
    with PageServer(source.collect, source.draw, seconds=0.0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server, source
        server.shutdown()
        thread.join()


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_the_page_is_made_anew_where_what_it_shows_has_changed(served):
    server, source = served
    status, text, headers = ask(server)
    assert (status, text, source.drawn) == (200, "page 1", 1)
    assert ask(server, If_None_Match=headers["ETag"])[:2] == (304, "")
    assert source.drawn == 1
    source.data = {"runs": 2}
    assert ask(server, If_None_Match=headers["ETag"])[:2] == (200, "page 2")


@pytest.mark.parametrize("path", ["/etc/passwd", "/../../etc/passwd", "/?x", "/index.html", "/%2e%2e/"])
def test_no_other_path_is_answered(served, path):
    status, text, _ = ask(served[0], path)
    assert status == 404
    assert "page" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_no_other_method_is_answered(served, method):
    assert ask(served[0], method=method)[0] == 501


def test_only_this_machine_by_its_own_name_is_answered(served):
    server, _ = served
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
        assert ask(server, Host=host)[0] == 403
    with socket.socket() as outside:
        outside.settimeout(2)
        here = socket.gethostbyname(socket.gethostname())
        if not here.startswith("127."):
            assert outside.connect_ex((here, server.server_port)) != 0


def test_who_asks_while_it_is_made_gets_the_last_page():
    source, begun, go_on = Source(), threading.Event(), threading.Event()

    def slow():
        if source.collected:
            begun.set()
            go_on.wait(10)
        return source.collect()

    with PageServer(slow, source.draw, seconds=0.0) as server:
        assert server.page()[0] == b"page 1"
        source.data = {"runs": 2}
        maker = threading.Thread(target=server.page)
        maker.start()
        begun.wait(10)
        before = time.monotonic()
        assert server.page()[0] == b"page 1"
        assert time.monotonic() - before < 5
        go_on.set()
        maker.join()
        assert server.page()[0] == b"page 2"
