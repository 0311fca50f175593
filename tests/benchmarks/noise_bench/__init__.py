"""The parts of `noise.py`. Each module has a function `rows(args, draw)`, which returns comparisons."""
