"""Where the time of a fit goes: Lightning's profiler interface, each moment counted once."""

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, wraps
from unittest.mock import patch

import wandb
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.profilers import Profiler

import lightning_trainingkit
from lightning_trainingkit.callbacks import _best_weights
from lightning_trainingkit.callbacks.checkpointing import best_checkpoint

SAVING, WANDB, SETUP, TRAINING = "checkpoint saving", "W&B start", "module's setup", "training"
# What Lightning reports to no profiler. It calls the logger outside of hooks too, and would not without CommandCenter.
CALLS = (
    (wandb, "init", WANDB),
    *((WandbLogger, method, "CommandCenter") for method in ("log_metrics", "log_hyperparams", "log_graph")),
    *((WandbLogger, method, "CommandCenter") for method in ("save", "finalize")),
    *((module, "restore_weights", SAVING) for module in (best_checkpoint, _best_weights)),
    *((module, "put_in_place", SAVING) for module in (best_checkpoint, _best_weights)),  # waits for the disk
    (best_checkpoint, "write_manifest", SAVING),
    (_best_weights, "_write_validated_weights", SAVING),
)


@cache  # without the cache this takes longer than an empty hook, and would count as the hook's time
def _own_name(action: str) -> str | None:
    if action == "save_checkpoint":
        return SAVING
    if action == "[LightningModule]ImageClassifier.setup":
        return SETUP
    named = re.match(r"\[(Callback|Call)\]([^.{]+)", action)
    if named is None or (named[1] == "Callback" and _is_empty(named[2], action.rpartition(".")[2])):
        return None
    return named[2]


def _is_empty(name: str, hook: str) -> bool:
    """Whether a callback of the kit leaves a hook to Lightning's base class, whose hooks do nothing."""
    kind = getattr(lightning_trainingkit, name, Callback)
    return kind is not Callback and getattr(kind, hook) is getattr(Callback, hook)


class HookTimer(Profiler):
    """Seconds by name of the call. A moment counts for the innermost call with a name, or for training.

    Lightning reports every hook of every callback, and every checkpoint that it saves. It also calls the hooks that a
    callback of the kit does not override. Those do nothing, so their time counts as training. Work of callbacks after
    the module's own `setup` counts as the module's setup, together with the one line of `ImageClassifier.setup`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self._names = [TRAINING]
        self._own = 0.0  # what the timer itself takes between start and stop, in seconds

    def start(self, action_name: str) -> None:
        self._charge()
        self._names.append(self._name(action_name))

    def stop(self, action_name: str) -> None:
        self._charge()
        self.seconds[self._names.pop()] -= self._own

    def _measure_own(self) -> float:
        """Time an empty hook, called as Lightning calls hooks: the control of all others."""
        self._last, times = time.perf_counter(), 5000
        for _ in range(times):
            with self.profile("[Callback]nothing.on_train_batch_end"):
                pass
        return self.seconds.pop("nothing") / times

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Count the time in this context."""
        with contextlib.ExitStack() as stack:
            for owner, call, name in CALLS:
                stack.enter_context(patch.object(owner, call, self._timed(getattr(owner, call), name)))
            self._own = self._measure_own()
            self.seconds.clear()
            self._last = time.perf_counter()
            yield
            self._charge()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._names[-1]] += now - self._last
        self._last = now

    def _name(self, action: str) -> str:
        return _own_name(action) or self._names[-1]

    def _timed(self, call: Callable, name: str) -> Callable:
        @wraps(call)
        def timed(*args, **kwargs):
            with self.profile(f"[Call]{name}"):
                return call(*args, **kwargs)

        return timed
