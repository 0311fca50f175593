import http.client
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from lightning_trainingkit.dashboards.page import connections
from lightning_trainingkit.dashboards.page.login import login_file
from lightning_trainingkit.dashboards.page.serving import PageServer

PROMISED = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Source:
    def __init__(self):
        self.data, self.collected, self.drawn = {"runs": 1}, 0, 0

    def collect(self):
        self.collected += 1
        if isinstance(self.data, Exception):
            raise self.data
        return dict(self.data)

    def draw(self, data):
        self.drawn += 1
        return f"page {data['runs']}"


@contextmanager
def serving(collect, draw, seconds=0.0):
    with PageServer(collect, draw, seconds=seconds) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def served():
    source = Source()
    with serving(source.collect, source.draw) as server:
        yield server, source


def ask(server, path="/", method="GET", body=None, cookie=True, **headers):
    """Status, text and headers of an answer; ``cookie=True`` is that of a browser that has logged in."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    if cookie is True:
        cookie = server.login.cookie.partition(";")[0]
    named = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Cookie": cookie} if cookie else {})
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def log_in(server, token, **headers):
    return ask(server, "/login", "POST", f"token={token}", cookie=None, **headers)


def sent(server, *parts, pause=0.0):
    """What comes back until the server closes, and after how many seconds it does."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        found = b""
        try:
            for part in parts:
                raw.sendall(part)
                time.sleep(pause)
            while more := raw.recv(65536):
                found += more
        except ConnectionError:
            pass
    return found, time.monotonic() - begun


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_page_is_made_again_where_what_it_shows_has_changed(served):
    server, source = served
    status, text, headers = ask(server)
    assert (status, text, source.drawn) == (200, "page 1", 1)
    assert ask(server, If_None_Match=headers["ETag"])[:2] == (304, "")
    assert source.drawn == 1
    source.data = {"runs": 2}
    assert ask(server, If_None_Match=headers["ETag"])[:2] == (200, "page 2")


@pytest.mark.parametrize("path", ["/etc/passwd", "/../../etc/passwd", "/?x", "/index.html", "/%2e%2e/", "/login"])
def test_no_other_path_is_answered(served, path):
    status, text, _ = ask(served[0], path)
    assert status == 404
    assert "page 1" not in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "<b>"])
def test_no_other_method_is_answered(served, method):
    status, text, _ = ask(served[0], method=method)
    assert status == 501
    assert "<b>" not in text


def test_head_is_get_without_the_page(served):
    status, text, headers = ask(served[0], method="HEAD")
    assert (status, text, headers["Content-Length"]) == (200, "", str(len("page 1")))
    assert headers["ETag"] == ask(served[0])[2]["ETag"]
    assert ask(served[0], method="HEAD", cookie=None)[:2] == (403, "")


def test_only_this_machine_by_its_own_name_is_answered(served):
    server, _ = served
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
        assert ask(server, Host=host)[0] == 403
        assert log_in(server, server.login.token, Host=host)[0] == 403
    cookie = server.login.cookie.partition(";")[0]
    two = f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{server.server_port}\r\nHost: evil.example\r\nCookie: {cookie}\r\n\r\n"
    assert sent(server, two.encode())[0].startswith(b"HTTP/1.0 403")
    with socket.socket() as outside:
        outside.settimeout(2)
        here = socket.gethostbyname(socket.gethostname())
        if not here.startswith("127."):
            assert outside.connect_ex((here, server.server_port)) != 0


def test_without_the_cookie_nothing_but_the_form_is_answered(served):
    server, source = served
    name, _, value = server.login.cookie.partition(";")[0].partition("=")
    wrong = (None, f"{name}=", f"{name}={value[:-1]}", f"{name}={server.login.token}", f"x{name}={value}", f"{name}=é")
    for cookie in wrong:
        for path in ("/", "/etc/passwd", "/login", "/favicon.ico"):
            status, text, headers = ask(server, path, cookie=cookie)
            assert status == 403
            assert 'type="password"' in text
            assert "Set-Cookie" not in headers
    assert ask(server, "/", "POST", f"token={server.login.token}", cookie=None)[0] == 403
    assert (source.collected, source.drawn) == (0, 0)
    assert ask(server, cookie=f'odd="a b"{{; session; {name}=old; {name}={value}; z=1')[0] == 200


def test_the_token_gives_the_cookie(served):
    server, _ = served
    status, text, headers = log_in(server, server.login.token, Origin="null", Sec_Fetch_Dest="document")
    assert status == 200
    assert 'http-equiv="refresh" content="0; url=/"' in text
    cookie, *rules = headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"trainingkit-{server.server_port}=")
    assert rules == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert server.login.token not in headers["Set-Cookie"] + text
    assert ask(server, cookie=cookie)[:2] == (200, "page 1")
    assert log_in(server, f"%20{server.login.token}%0A")[0] == 200  # as it is pasted


@pytest.mark.parametrize("token", ["", "x", "%C3%A9", "%ED%A0%80", "&token=", "é"])
def test_no_other_token_does(served, token):
    status, text, headers = log_in(served[0], token)
    assert status == 403
    assert "This is not the token." in text
    assert "Set-Cookie" not in headers


def test_other_sites_cannot_send_the_form(served):
    server, _ = served
    own = f"http://127.0.0.1:{server.server_port}"
    assert log_in(server, server.login.token, Origin=own)[0] == 200
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": own.replace("http", "https")},
        {"Origin": "null", "Sec_Fetch_Dest": "iframe"},
        {"Origin": own, "Sec_Fetch_Dest": "empty"},
    ):
        status, _, answered = log_in(server, server.login.token, **headers)
        assert status == 403
        assert "Set-Cookie" not in answered


def test_a_form_is_short_and_says_how_long_it_is(served):
    server, _ = served
    assert log_in(server, "x" * 2000)[0] == 413
    assert ask(server, "/login", "POST", None, Content_Length="9" * 5000)[0] == 413
    assert ask(server, "/login", "POST", None, Content_Length="-1")[0] == 411
    assert ask(server, "/login", "POST", iter([b"token=x"]))[0] == 411
    assert ask(server, "/login", "POST", "&".join("abcdefgh"))[0] == 403
    assert ask(server, "/", "POST", f"token={server.login.token}")[0] == 404


def test_every_answer_says_what_browsers_must_not_do(served):
    server, _ = served
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    cookie = f"Cookie: {server.login.cookie.partition(';')[0]}\r\n"
    tag = ask(server)[2]["ETag"]
    long = "".join(f"X-{n}: {'x' * 900}\r\n" for n in range(80))
    for status, request in (
        (200, f"GET / HTTP/1.1\r\n{host}{cookie}\r\n"),
        (304, f"GET / HTTP/1.1\r\n{host}{cookie}If-None-Match: {tag}\r\n\r\n"),
        (404, f"GET /x HTTP/1.1\r\n{host}{cookie}\r\n"),
        (403, f"GET / HTTP/1.1\r\n{host}\r\n"),
        (403, "GET / HTTP/1.1\r\n\r\n"),
        (501, f"PUT / HTTP/1.1\r\n{host}{cookie}\r\n"),
        (400, f"GET /\r\n{host}{cookie}\r\n"),
        (400, "\x16\x03\x01\x02 TLS\r\n\r\n"),
        (400, "GET / HTTP/x\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\n\r\n"),
        (431, f"GET / HTTP/1.1\r\n{host}{long}\r\n"),
        (431, f"GET / HTTP/1.1\r\n{host}{cookie}X: {'x' * 70000}\r\n\r\n"),
        (431, f"GET /{'x' * 70000} HTTP/1.1\r\n\r\n"),
        (200, f"POST /login HTTP/1.1\r\n{host}Content-Length: 49\r\n\r\ntoken={server.login.token}"),
    ):
        head, _, _ = sent(server, request.encode("latin-1"))[0].decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        assert first.split()[1] == str(status), request[:80]
        headers = dict(line.split(": ", 1) for line in lines)
        assert headers.items() >= PROMISED.items()
        assert headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")


def test_who_sends_slowly_is_dropped(served, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    server, _ = served
    before = threading.active_count()
    request = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nContent-Length: 40\r\n\r\ntoken=xx"
    for start in (10, len(request)):  # in the head, in the body
        parts = [request[:start].encode(), *(b"x" for _ in range(30))]
        assert sent(server, *parts, pause=0.1)[1] < 2
    assert sent(server)[1] < 2
    until(lambda: threading.active_count() <= before)


def test_who_reads_slowly_is_dropped(monkeypatch, capfd):
    monkeypatch.setattr(connections, "PAGE_SECONDS", 0.3)
    source = Source()
    with serving(source.collect, lambda _: "x" * 50_000_000) as server:
        before = threading.active_count()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
            cookie = server.login.cookie.partition(";")[0]
            raw.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nCookie: {cookie}\r\n\r\n".encode())
            assert raw.recv(4) == b"HTTP"
            until(lambda: threading.active_count() == before)
    assert capfd.readouterr() == ("", "")


def test_broken_connections_leave_no_trace(served, capfd):
    server, _ = served
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    cookie = f"Cookie: {server.login.cookie.partition(';')[0]}\r\n"
    before = threading.active_count()
    for data in (
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"GET / HT",
        f"GET / HTTP/1.1\r\n{host}{cookie}".encode(),
        f"GET / HTTP/1.1\r\n{host}{cookie}\r\n".encode(),
        f"POST /login HTTP/1.1\r\n{host}Content-Length: 40\r\n\r\ntok".encode(),
        b"\0" * 70000,
    ):
        for linger in (b"\1\0\0\0\0\0\0\0", b"\0" * 8):  # with a reset, and without
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raw.sendall(data)
    until(lambda: threading.active_count() == before)
    assert ask(server)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_who_opens_many_connections_keeps_nobody_out(served):
    server, _ = served
    before = threading.active_count()
    held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=10) for _ in range(100)]
    try:
        assert ask(server)[:2] == (200, "page 1")
        until(lambda: threading.active_count() <= before + connections.MOST + 1)
        assert held[0].recv(1) == b""  # the oldest is closed
    finally:
        for each in held:
            each.close()


def test_who_asks_while_it_is_made_gets_the_last_page():
    source, go_on = Source(), threading.Event()

    def slow():
        if source.collected:
            go_on.wait(10)
        return source.collect()

    with serving(slow, source.draw) as server:
        assert ask(server)[1] == "page 1"
        source.data = {"runs": 2}
        before = time.monotonic()
        assert [ask(server)[1] for _ in range(2)] == ["page 1", "page 1"]
        assert time.monotonic() - before < 3
        go_on.set()
        until(lambda: ask(server)[1] == "page 2")


def test_a_page_that_reloads_itself_stands_there_while_the_first_one_is_made():
    source, go_on = Source(), threading.Event()

    def slow():
        go_on.wait(10)
        return source.collect()

    with serving(slow, source.draw) as server:
        status, text, headers = ask(server)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "The runs are being read." in text
        assert 'http-equiv="refresh" content="1; url=/"' in text
        go_on.set()
        until(lambda: ask(server)[:2] == (200, "page 1"))
    assert source.collected <= 3


def test_what_went_wrong_stands_in_the_place_of_the_page_until_it_goes_well(served):
    server, source = served
    assert ask(server)[1] == "page 1"
    for error, words in (
        (
            FileNotFoundError("got </p><script>, which\x1b[2J is gone"),
            "got &lt;/p&gt;&lt;script&gt;, which\\x1b[2J is gone",
        ),
        (KeyError(), "KeyError"),
        (ValueError("a \ud800 name"), "a \\ud800 name"),
    ):
        source.data = error
        status, text, _ = ask(server)
        assert status == 500
        assert words in text
        assert 'http-equiv="refresh"' in text
    source.data = {"runs": 1}
    assert ask(server)[:2] == (200, "page 1")
    assert source.drawn == 1


def test_nothing_is_read_while_nobody_asks():
    source = Source()
    with serving(source.collect, source.draw, seconds=60) as server:
        assert [ask(server)[1] for _ in range(3)] == ["page 1"] * 3
        assert source.collected == 1


@pytest.mark.parametrize("has_runtime_folder", [True, False])
def test_nobody_but_its_owner_reads_the_login_file(tmp_path, monkeypatch, has_runtime_folder):
    runtime = tmp_path / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    if has_runtime_folder:
        runtime.mkdir()
    with login_file("http://127.0.0.1:1/", "secret") as file:
        assert (file.parent.parent == runtime) is has_runtime_folder
        assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]
        assert re.findall(r'action="(.*?)"|value="(.*?)"', file.read_text()) == [
            ("http://127.0.0.1:1/login", ""),
            ("", "secret"),
        ]
    assert not file.parent.exists()
