from .learning_rate import LearningRate as LearningRate
from .learning_rate import find_learning_rate as find_learning_rate
from .verdict import Verdict as Verdict
