"""The parts of `tuning.py`. Each module has a function `rows(args)`, which returns comparisons."""
