"""How the tests start processes of their own."""

import os


def environment(**extra):
    """The environment of a user's shell: one thread, nothing sent anywhere, and not this process's own W&B service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_SERVICE", "TRAININGKIT_"))}
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"} | extra
