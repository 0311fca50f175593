"""Which devices and how many threads the trials of one worker get."""

import os

import torch

from lightning_trainingkit.functional import _check

__all__ = ["TrialDevices"]


class TrialDevices:
    """Shares the devices of a machine among the trials that run at once.

    With more trials at once than devices, trials share devices. On CPU the cores are shared out, unless the variable
    OMP_NUM_THREADS is set. No GPU is touched here.

    Args:
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"`` or another one of Lightning's.
        devices: Devices of each trial.
        jobs: Trials at once. None for as many as there are devices for, one on CPU.

    Raises:
        ValueError: If a trial needs more GPUs than there are.
    """

    def __init__(self, accelerator: str, devices: int, jobs: int | None) -> None:
        count = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
        self.devices = _check.integer("devices", devices, "Give the devices of each trial.", least=1)
        if devices > count > 0:
            raise ValueError(f"`devices` must be at most {count}, got {devices}. This machine has no more GPUs.")
        self.accelerator = accelerator if accelerator != "auto" else "gpu" if count else "cpu"
        jobs = max(1, count // devices) if jobs is None else jobs
        self.jobs = _check.integer("jobs", jobs, "Give the number of trials at once.", least=1)
        self._gpus = _visible(count)

    @property
    def threads(self) -> int:
        """Threads of torch in each process, 0 where torch decides."""
        processes = self.jobs * self.devices
        if self.accelerator != "cpu" or processes == 1 or "OMP_NUM_THREADS" in os.environ:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // processes)

    @property
    def hold_memory(self) -> bool:
        """Whether the process of a trial must have ended before the next one fits on its device."""
        return self.accelerator != "cpu"

    def environment(self, slot: int) -> dict[str, str]:
        """Variables by which the trial in a slot sees its own GPUs alone."""
        if self.accelerator not in ("gpu", "cuda") or not self._gpus:
            return {}
        mine = [self._gpus[(slot * self.devices + each) % len(self._gpus)] for each in range(self.devices)]
        return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def _visible(count: int) -> list[str]:
    """The GPUs of this worker, as CUDA_VISIBLE_DEVICES names them."""
    given = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return given[:count] if given else [str(each) for each in range(count)]
