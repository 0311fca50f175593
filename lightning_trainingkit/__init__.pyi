from . import callbacks as callbacks
from . import data as data
from . import functional as functional
from . import modules as modules
from . import nn as nn
from ._version import __version__ as __version__
