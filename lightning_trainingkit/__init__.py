"""Everything in a classic lecture on training neural networks, as plug-ins for a Lightning Trainer.

The public names are listed in ``__init__.pyi`` and loaded on first use: ``import lightning_trainingkit`` imports
neither torch nor Lightning.
"""

import lazy_loader

from lightning_trainingkit._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# A star import must not replace torch's `nn`.
__all__ = [name for name in __all__ if name not in ("callbacks", "data", "functional", "modules", "nn", "tuning")]
