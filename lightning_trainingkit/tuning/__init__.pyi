from .learning_rate import find_learning_rate as find_learning_rate
from .learning_rate_test import LearningRateTest as LearningRateTest
from .rate_verdict import LearningRate as LearningRate
from .verdict import Verdict as Verdict
