"""A loopback server that answers what the real W&B client asks to download an artifact: no copy of the site."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "p", "internalId": "1", "name": "project", "entity": {"name": "entity"}}
COLLECTION = {"__typename": "ArtifactSequence", "name": "model", "project": PROJECT}
TIME = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
ARTIFACT = {
    "__typename": "Artifact",
    "id": "artifact",
    "artifactSequence": COLLECTION,
    "versionIndex": 0,
    "tags": [],
    "artifactType": {"name": "model"},
    "description": None,
    "metadata": "{}",
    "historyStep": None,
    "size": 1,
    "ttlDurationSeconds": 0,
    "ttlIsInherited": False,
    "state": "COMMITTED",
    "digest": "d",
    "fileCount": 1,
    "commitHash": "c",
    **TIME,
}
MEMBERSHIP = {
    "__typename": "ArtifactCollectionMembership",
    "id": "m",
    "versionIndex": 0,
    "createdAt": TIME["createdAt"],
    "aliases": [],
    "artifactCollection": COLLECTION,
    "artifact": ARTIFACT,
}


@contextmanager
def serving(files: dict[str, bytes]):
    """Serve an artifact entity/project/model:v0 with these files; gives the address and the names of what is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request["query"].replace("{", "(").split("(")[0].split()[1])
            self._send(json.dumps({"data": self._answer(asked[-1], request.get("variables"))}).encode())

        def do_GET(self):
            name = self.path.removeprefix("/files/")
            self._send(json.dumps(manifest(files)).encode() if name == "manifest" else files[name])

        def _answer(self, name, variables):
            url = f"http://127.0.0.1:{self.server.server_port}/files"
            if name == "ArtifactMembershipByName":
                found = MEMBERSHIP if variables["name"] == "model:v0" else None
                return {"project": {"artifactCollectionMembership": found}}
            if name == "FetchArtifactManifest":
                return {"artifact": {"currentManifest": {"file": {"directUrl": f"{url}/manifest"}}}}
            if name == "GetArtifactMembershipFileUrls":
                nodes = [{"node": {"name": file, "directUrl": f"{url}/{file}"}} for file in files]
                page = {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": nodes}
                return {"project": {"artifactCollection": {**COLLECTION, "artifactMembership": {"files": page}}}}
            viewer = {"id": "1", "entity": "entity", "username": "me", "teams": {"edges": []}, "flags": "{}"}
            return {"viewer": viewer, "serverInfo": {"features": []}}

        def _send(self, content):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def manifest(files):
    digests = {name: base64.b64encode(hashlib.md5(content).digest()).decode() for name, content in files.items()}
    contents = {name: {"digest": digests[name], "size": len(content)} for name, content in files.items()}
    policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
    return {"version": 1, **policy, "contents": contents}
