"""The command center: all runs on one page, as a local file and as a W&B workspace, from one description."""
