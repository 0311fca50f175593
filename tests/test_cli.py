import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import lightning
import pytest
import torch
import wandb

import lightning_trainingkit
from lightning_trainingkit.cli import main
from tests.process import ROOT, environment
from tests.toy import ToyModule, toy_loaders, toy_trainer


def test_dashboard_writes_the_page_of_a_folder(tmp_path, capsys):
    from lightning.pytorch.loggers import CSVLogger

    toy_trainer(logger=CSVLogger(tmp_path, name="toys")).fit(ToyModule(), *toy_loaders())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.csv").write_text("")
    assert main(["dashboard", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"Wrote {tmp_path / 'dashboard.html'}: 1 run (" in said.out
    assert "broken/metrics.csv: it is empty." in said.err
    page = (tmp_path / "dashboard.html").read_text(encoding="utf-8")
    assert "toys/version_0" in page
    assert main(["dashboard", str(tmp_path), "--output", str(tmp_path / "other" / "page.html")]) == 0
    assert (tmp_path / "other" / "page.html").is_file()
    capsys.readouterr()
    assert main(["dashboard", str(tmp_path), "--better", "max"]) == 0
    assert "--better max is taken, although the name val/loss says the opposite" in capsys.readouterr().err


def test_version_names_the_kit_and_the_packages_that_its_results_depend_on(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    kit, packages = capsys.readouterr().out.splitlines()
    assert kit == f"lightning-trainingkit {lightning_trainingkit.__version__}"
    for package in (torch, lightning, wandb):
        assert f"{package.__name__} {package.__version__.partition('+')[0]}" in packages


def test_what_is_wrong_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for arguments, words in (
        (["dashboard"], "`DIR` must be a folder with runs, got none"),
        (["dashboard", str(tmp_path / "none")], "which does not exist"),
        (["dashboard", "--online", "a/b"], "`--output` must be given"),
        (["dashboard", str(tmp_path), "--output", str(tmp_path)], "The page must be a file, got the folder"),
        (["dashboard", str(tmp_path), "--port", "99999"], "`--port` must be from 0 to 65535"),
        (["dashboard", str(tmp_path), "--target", "width"], "`--better` must be min or max"),
        (["dashboard", str(tmp_path / "file")], "which is a file"),
        (["dashboard", str(tmp_path), "--online", "a"], "`--online` must be ENTITY/PROJECT, got 'a'"),
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_link_in_the_place_of_the_page_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "runs" / "version_0").mkdir(parents=True)
    (tmp_path / "runs" / "version_0" / "metrics.csv").write_text("epoch,step,val/loss\n0,0,0.5\n1,9,0.4\n")
    (tmp_path / "thesis.txt").write_text("precious")
    page = tmp_path / "runs" / "dashboard.html"
    page.symlink_to(tmp_path / "thesis.txt")
    assert main(["dashboard", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert not page.is_symlink()
    assert "version_0" in page.read_text(encoding="utf-8")


def shown(capsys):
    """What reached the terminal, which must hold no character that steers it."""
    said = capsys.readouterr()
    assert not re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", said.out + said.err)
    return said


def test_names_on_disk_do_not_steer_the_terminal(tmp_path, capsys):
    odd = tmp_path / "\x1b[2J\x1b]0;owned\x07\n\x9b\u202e\u2028"
    bad = Path(os.fsdecode(os.fsencode(odd) + b"\xff"))
    for run in ("one", "two\r\x7f"):
        (bad / run).mkdir(parents=True)
        (bad / run / "metrics.csv").write_text("")
    assert main(["dashboard", str(bad)]) == 0
    said = shown(capsys)
    assert r"\x1b[2J\x1b]0;owned\x07\n\x9b\u202e\u2028\udcff/dashboard.html: 0 runs" in said.out.replace(
        "no runs", "0 runs"
    )
    assert r"two\r\x7f/metrics.csv: it is empty." in said.err
    assert said.out.count("\n") == 1
    assert said.err.count("\n") == 2
    assert main(["dashboard", str(bad / "none\x1b[2J")]) == 1
    assert shown(capsys).err.count("\n") == 1
    for arguments in (["dashboard", "--none=\x1b[2J"], ["\x1b[2J"], ["dashboard", "--port", "\x1b[2J"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "x1b[2J" in shown(capsys).err


SERVE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from lightning_trainingkit import cli
from lightning_trainingkit.dashboards import local
if sys.argv[2] == "reading":
    local.collect = lambda *_: ThreadPoolExecutor(1).submit(sleep, 60).result()
sys.exit(cli.main(["dashboard", sys.argv[1], "--serve", "--open"]))
"""


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("state", ["idle", "reading"])
def test_serve_answers_one_user_and_ends_at_once(tmp_path, ending, status, state):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").write_text("epoch,step,val/loss\n0,0,0.5\n1,9,0.4\n")
    (tmp_path / "browser").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/started\n'
    )
    (tmp_path / "browser").chmod(0o700)
    env = environment(BROWSER=str(tmp_path / "browser"), TMPDIR=str(tmp_path), XDG_RUNTIME_DIR="", PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", SERVE, tmp_path, state]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        try:
            check_served(served, tmp_path, state)
            before = time.monotonic()
            served.send_signal(ending)
            assert (served.wait(20), served.stdout.read(), served.stderr.read()) == (status, "", "")
            assert time.monotonic() - before < 5
        finally:
            served.kill()
    assert [*tmp_path.glob("trainingkit-*")] == []


def check_served(served, folder, state):
    until((folder / "started").exists, 60)
    said = "".join(served.stdout.readline() for _ in range(3))
    port = int(re.search(r"http://127.0.0.1:(\d+)/ \(Ctrl-C ends it\)\n", said)[1])
    login = Path(re.search("open (.*) or paste", said)[1])
    assert (folder / "started").read_text().strip() == login.as_uri()
    token = re.search('value="(.*)"', login.read_text())[1]
    assert token not in said
    assert ask(port, "GET", "/")[0] == 403
    cookie = ask(port, "POST", "/login", f"token={token}")[2]["Set-Cookie"].partition(";")[0]
    if state == "idle":
        until(lambda: "version_0" in ask(port, "GET", "/", headers={"Cookie": cookie})[1])
    else:
        assert "are being read" in ask(port, "GET", "/", headers={"Cookie": cookie})[1]


def ask(port, *request, **options):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(*request, **options)
    with connection.getresponse() as answer:
        found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_serve_says_at_once_what_is_missing(tmp_path, capsys):
    assert main(["dashboard", str(tmp_path / "none"), "--serve"]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dashboard", str(tmp_path), "--serve", "--port", str(port)]) == 1
    assert f"`--port` must be free, got {port}" in capsys.readouterr().err


def test_the_target_is_found_by_its_words_or_named_with_what_there_is(tmp_path, capsys):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").write_text("epoch,step,val_loss_epoch,val_f1\n0,0,0.5,0.1\n1,9,0.4,0.2\n")
    page = tmp_path / "dashboard.html"
    for arguments, said in (
        ((), '"target":"val_loss_epoch","better":"min"'),
        (("--target", "val_loss"), '"target":"val_loss","better":"min"'),
        (("--target", "val_f1"), '"target":"val_f1","better":"max"'),
    ):
        assert main(["dashboard", str(tmp_path), *arguments]) == 0
        assert said in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["dashboard", str(tmp_path), "--target", "val_acc"]) == 1
    assert capsys.readouterr().err == (
        "trainingkit dashboard: `--target` must be a metric that a run has, got 'val_acc'. "
        "The runs have: val_f1, val_loss_epoch.\n"
    )
    assert main(["dashboard", str(tmp_path), "--better", "max"]) == 0
    assert "although the name val_loss_epoch says the opposite" in capsys.readouterr().err


def test_serve_writes_no_page(tmp_path, capsys):
    assert main(["dashboard", str(tmp_path), "--serve", "--output", str(tmp_path / "page.html")]) == 1
    assert "`--output` must be left out with --serve" in shown(capsys).err
