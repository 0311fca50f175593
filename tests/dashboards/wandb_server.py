"""A loopback server that keeps what the real W&B client saves and answers what it asks: no copy of the site."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests import process
from tests.process import ROOT, environment

CLI = "from lightning_trainingkit.cli import main; raise SystemExit(main())"
VIEWER = {"id": "1", "entity": "me", "username": "me", "teams": {"edges": []}, "flags": "{}"}


class Site:
    """One project, ``team/digits``.

    Attributes:
        url: Where it is.
        views: Saved views by their id.
        runs: Runs as W&B's GraphQL has them, and their ``rows``.
        asked: Name and variables of each request.
        refused: Names of requests that it refuses, and the status that it sends.
    """

    def __init__(self):
        self.url = ""
        self.views = {}
        self.runs = []
        self.asked = []
        self.refused = {}

    def answer(self, name, given):
        """The data of a GraphQL request."""
        self.asked.append((name, given))
        if name in ("Viewer", "GetDefaultEntity"):
            return {"viewer": VIEWER}
        names = (given.get("entity", given.get("entityName")), given.get("projectName", given.get("project")))
        if names != ("team", "digits"):
            return {"project": None}
        return self._saved(given) if name == "UpsertView2" else {"project": self._project(name, given)}

    def _saved(self, given):
        # By id or, like the site, by name within the project.
        known = next((each for each in self.views.values() if each["name"] == given["name"]), None)
        key = given.get("id") or (known["id"] if known else f"view{len(self.views)}")
        inserted = key not in self.views
        self.views[key] = {"id": key, **{field: given[field] for field in ("name", "displayName", "spec")}}
        return {"upsertView": {"view": {"id": key, "name": given["name"]}, "inserted": inserted}}

    def _project(self, name, given):
        if name == "View":
            return {"allViews": edges(view for view in self.views.values() if view["name"] == given["viewName"])}
        if name == "Runs":  # one a page, however many are asked for
            start = int(given["cursor"] or 0)
            more = {"pageInfo": {"endCursor": str(start + 1), "hasNextPage": start + 1 < len(self.runs)}}
            listed = [{"projectId": "1", **run, "rows": None} for run in self.runs[start : start + 1]]
            page = edges(listed, str(start + 1))
            return {"internalId": "1", "runCount": len(self.runs), "readOnly": False, "runs": page | more}
        found = next(
            run for run in self.runs if run["name"] in (given.get("name"), given.get("run"), given.get("runName"))
        )
        rows = found["rows"]
        if name == "RunHistoryKeys":
            return {"run": {"historyKeys": {"lastStep": rows[-1]["_step"] if rows else -1}}}
        if name == "RunParquetHistory":
            return {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}
        assert name == "HistoryPage", name
        there = [json.dumps(row) for row in rows if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"run": {"history": there[: given["pageSize"]]}}


def edges(nodes, cursor=None):
    return {"edges": [{"node": node, "cursor": cursor} for node in nodes]}


@contextmanager
def serving():
    """Serve an empty :class:`Site`."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = request["query"].removeprefix("#graphql").replace("{", "(").split("(")[0].split()[1]
            if name in site.refused:
                site.asked.append((name, request.get("variables")))
                self._send(site.refused[name], {"errors": [{"message": "permission denied"}]})
            else:
                self._send(200, {"data": site.answer(name, request.get("variables") or {})})

        def _send(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def account(url, key="a" * 40, **extra):
    """The environment of someone who is logged in there, or with no key of someone who is not."""
    nowhere = str(ROOT / "no such file")
    names = {"WANDB_BASE_URL": url, "WANDB_API_KEY": key, "NETRC": nowhere, "WANDB_CONFIG_DIR": nowhere}
    return environment(PYTHONPATH=str(ROOT), **names, **extra)


def client(code, *arguments, env):
    """Run code with the real W&B client, which keeps state of its own, in a process of its own."""
    return process.run("-c", code, *arguments, env=env, timeout=120, ok=False)
