"""``trainingkit dashboard``: draw or serve the runs below some folders as one page."""

import argparse
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lightning_trainingkit.dashboards.printable import printable

__all__ = ["add_dashboard"]


def add_dashboard(commands: Any) -> None:
    """Add the command to the parser's commands."""
    dashboard = commands.add_parser(
        "dashboard",
        help="draw all runs below some folders on one page",
        description="Draw all runs below some folders on one page: runs of W&B, CSVLogger and TensorBoard.",
    )
    dashboard.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="folder with runs")
    dashboard.add_argument(
        "--online", metavar="ENTITY/PROJECT", action="append", default=[], help="runs of W&B's server"
    )
    dashboard.add_argument(
        "--target",
        help="metric by which runs are compared (default: the monitor of their callbacks, or a validation loss)",
    )
    dashboard.add_argument(
        "--better", choices=["min", "max"], help="better end of --target, if neither a run nor its name says it"
    )
    dashboard.add_argument("--output", type=Path, help="the page (default: dashboard.html in the first DIR)")
    dashboard.add_argument("--open", action="store_true", help="open it in the browser")
    dashboard.add_argument("--serve", action="store_true", help="serve it to this machine, and keep it up to date")
    dashboard.add_argument("--port", type=int, default=0, help="with --serve (default: a free one)")
    dashboard.set_defaults(run=_dashboard)


def _dashboard(args: argparse.Namespace) -> int:
    from lightning_trainingkit.dashboards.local import write_center
    from lightning_trainingkit.dashboards.page.render import check_file

    if args.target:
        _say_opposite(args.better, args.target)
    if not args.folders and not args.online:
        raise ValueError("`DIR` must be a folder with runs, got none. Name one, or --online ENTITY/PROJECT.")
    if not 0 <= args.port < 2**16:
        raise ValueError(f"`--port` must be from 0 to 65535, got {args.port}. 0 takes a free one.")
    if not args.folders and not args.output and not args.serve:
        raise ValueError("`--output` must be given if there is no DIR for the page, got none. Name a file.")
    if args.serve and args.output:
        raise ValueError(f"`--output` must be left out with --serve, which writes no page, got {args.output}.")
    if args.serve:
        return _serve(args)
    path = (args.output or args.folders[0] / "dashboard.html").absolute()  # a link itself is replaced, not its target
    check_file(path)
    data = write_center(path, args.folders, args.online, args.target, args.better)
    if not args.target:
        _say_opposite(args.better, data["target"])
    print(printable(f"Wrote {path}: {data['counted']}"))
    if not data["runs"] and not data["skipped"]:
        print("A run is a run-ID.wandb of W&B, a metrics.csv of CSVLogger or an events.out.tfevents of TensorBoard.")
    for file, why in data["skipped"].items():
        print(printable(f"skipped {file}: {why}"), file=sys.stderr)
    if args.open:
        webbrowser.open(path.as_uri())
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or a signal ends it."""
    from lightning_trainingkit.dashboards.local import collect, title
    from lightning_trainingkit.dashboards.page.login import login_file
    from lightning_trainingkit.dashboards.page.render import render
    from lightning_trainingkit.dashboards.page.serving import PageServer

    name = title(args.folders, args.online)
    render({"counted": ""}, name)  # an error here if a package is missing
    for folder in args.folders:
        os.scandir(folder).close()  # an error here if a folder is missing
    said = ""

    def read() -> dict[str, Any]:
        nonlocal said
        try:
            data = collect(args.folders, args.online, args.target, args.better)
        except Exception as error:
            if said != (said := str(error)):  # the page shows it too: print it once
                print(printable(f"trainingkit dashboard: {error}"), file=sys.stderr, flush=True)
            raise
        said = ""
        return data

    try:
        server = PageServer(read, lambda data: render(data, name, follow=5.0), args.port)
    except OSError as error:
        raise OSError(f"`--port` must be free, got {args.port}: {error.strerror}. 0 takes a free one.") from error
    status = 0
    try:
        with server, login_file(server.url, server.login.token) as file, _ended_by_signals():
            server.kept.get()
            port = server.server_port
            print(f"{server.url} (Ctrl-C ends it)")
            print(printable(f"To log a browser in, open {file} or paste the token that stands in it."))
            print(f"From another machine: ssh -L {port}:127.0.0.1:{port} HOST", flush=True)
            if args.open:  # in a thread: a browser in the terminal returns only at its end
                threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
            server.serve_forever()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as end:
        status = int(end.code or 0)
    if server.kept.is_busy:  # Python would wait for the reading thread
        sys.stdout.flush()
        os._exit(status)
    return status


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block by an exception, so that its files are removed."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    here = threading.current_thread() is threading.main_thread()
    replaced = [each for each in signals if here and signal.getsignal(each) is signal.SIG_DFL]  # `nohup` ignores one
    for each in replaced:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in replaced:
            signal.signal(each, signal.SIG_DFL)


def _say_opposite(better: str | None, target: str) -> None:
    from lightning_trainingkit.dashboards.panels import direction

    if better and direction(target) not in (None, better):
        said = f"--better {better} is taken, although the name {target} says the opposite"
        print(printable(said), file=sys.stderr)
