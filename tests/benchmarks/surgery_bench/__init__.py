"""The parts of `surgery.py`. Each module has a function `rows(args, draw)`, which returns comparisons."""
