from .curves import CurveReading as CurveReading
from .curves import read_curves as read_curves
from .verdict import Verdict as Verdict
