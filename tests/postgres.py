"""A PostgreSQL of Debian's package, in a temporary folder and on a free port. It does not run as root."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


class Postgres:
    """A running server.

    Attributes:
        url: Address of its database, as a user writes it.
    """

    def __init__(self, folder):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name))
        if not programs:
            (pytest.fail if "CI" in os.environ else pytest.skip)("needs Debian's package postgresql")
        self._programs, self._folder = programs[-1], folder
        if getpass.getuser() == "root":
            shutil.chown(folder, "postgres")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "--no-sync")
        self._control("start", "-o", self._options)

    def restart(self):
        """Cut all connections, and start again."""
        self._control("restart", "-m", "fast")

    def stop(self):
        self._control("stop", "-m", "immediate")

    def _control(self, what, *options):
        self._call("pg_ctl", "-D", f"{self._folder}/data", "-l", f"{self._folder}/log", "-w", what, *options)

    def _call(self, program, *arguments):
        user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        done = subprocess.run([*user, self._programs / program, *arguments], capture_output=True, cwd="/", text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def running():
    """A server, until the block ends."""
    folder = tempfile.mkdtemp(prefix="tk-pg-")  # its user may not enter pytest's folders
    server = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
