"""Beats in the folder that is named until it is killed, and says when it has begun."""

import sys
import time

from lightning_trainingkit.dashboards.heartbeat import Heartbeat

if __name__ == "__main__":
    Heartbeat(sys.argv[1])
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    time.sleep(60)
