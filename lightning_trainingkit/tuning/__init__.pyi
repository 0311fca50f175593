from .initial_loss import InitialLoss as InitialLoss
from .initial_loss import check_initial_loss as check_initial_loss
from .small_sample import SmallSample as SmallSample
from .small_sample import overfit_small_sample as overfit_small_sample
from .verdict import Verdict as Verdict
