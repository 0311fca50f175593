"""A process that has imported torch, Lightning and the kit, and forks a child for each script: importing takes seconds.

A child is a process of its own with its own session, folder, environment and arguments. It ends as the interpreter
does, so that W&B's and Lightning's exit handlers run, or by a signal. Variables that are read at an import
(``OMP_NUM_THREADS``) keep the value that they had here. ``tests/process.py`` starts it and asks it.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import random
import socket
import sys
import types
import warnings
from pathlib import Path

IDLE = 900  # seconds until it ends by itself, where whoever started it was killed
IMPORTS = ["torch", "torchvision", "torchmetrics", "lightning", "wandb", "sklearn.datasets", "scipy.stats", "rich.live"]
IMPORTS += ["optuna", "omegaconf", "sqlalchemy", "wandb.sdk.launch"]  # the last one is what a W&B run imports, slowly


def import_all():
    """Import what scripts use. Nothing is built or trained: a fork keeps one thread alone."""
    import lightning_trainingkit

    folders = pkgutil.walk_packages(lightning_trainingkit.__path__, "lightning_trainingkit.")
    for name in [*IMPORTS, *(each.name for each in folders if not each.name.endswith("__main__"))]:
        importlib.import_module(name)
    threads = len([*Path("/proc/self/task").iterdir()])
    if threads > 1:
        raise RuntimeError(f"The server must have one thread, got {threads}: a forked child would wait for the others.")


def serve(address):
    """Return what a forked child has to run; the server itself stays in here."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{address}.new")
    server.listen(16)
    server.settimeout(IDLE)
    Path(f"{address}.new").rename(address)
    keepers = 0
    while True:
        connection, _ = server.accept()
        while keepers and os.waitpid(-1, os.WNOHANG)[0]:  # their time counts as this process's
            keepers -= 1
        keepers += 1
        if os.fork() == 0:
            server.close()
            return keep(connection)
        connection.close()


def keep(connection):
    """Fork the child, tell its number and how it ended; return in the child alone."""
    connection.settimeout(None)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        return request
    with contextlib.suppress(BrokenPipeError):  # who asked may be gone
        connection.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request):
    """Do what ``python SCRIPT ARGUMENTS``, or ``python -c CODE ARGUMENTS``, would in a new process."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    files = {0: os.devnull, 1: request["out"], 2: request["err"]}
    for number, path in files.items():
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    random.seed()  # a new process begins with numbers of its own; torch begins with the same ones
    sys.modules["numpy"].random.seed()
    if os.environ.get("PYTHONWARNINGS"):
        warnings.simplefilter(os.environ["PYTHONWARNINGS"])
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if not sys.modules["torch"].cuda.is_available():  # trials fork from here: a server would import all again
        sys.modules["lightning_trainingkit.tuning.trials.trial_server"].start_method = "fork"
    script, *arguments = request["arguments"]
    if script == "-c":
        code, *arguments = arguments
        sys.path[0] = ""
    else:
        code = Path(script).read_text()
        sys.path[0] = str(Path(script).parent.absolute())
        main.__file__ = script
    sys.argv = [script, *arguments]
    exec(compile(code, "<string>" if script == "-c" else script, "exec"), main.__dict__)


if __name__ == "__main__":
    import_all()
    become(serve(sys.argv[1]))
