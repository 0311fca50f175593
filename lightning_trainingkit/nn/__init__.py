"""Modules and functions that wrap, replace or read a layer or a model. They need torch alone, no Lightning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
