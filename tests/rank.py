"""Run by torchrun: a script as one rank that ends its process group itself: left to the exit, gloo aborts at times."""

import runpy
import sys

from torch import distributed

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
    if distributed.is_initialized():
        distributed.destroy_process_group()
