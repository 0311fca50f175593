"""How the tests start processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**extra):
    """The environment of a user's shell: one thread, nothing sent anywhere, and not this process's own W&B service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_SERVICE", "TRAININGKIT_"))}
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"} | extra


def run_script(script, *arguments, folder, ranks=1):
    """Run a Python script in ``folder``, alone or by torchrun on so many gloo ranks."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(ROOT / "tests/rank.py")]
    run = subprocess.run(
        [sys.executable, *(torchrun if ranks > 1 else []), str(script), *map(str, arguments)],
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
