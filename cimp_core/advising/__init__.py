"""Which settings next: the least dose that reaches a goal, from a quick frame, once or in a loop.

The folder is not named ``advise``, for a subpackage of that name would replace the function `cimp_core.advise` as soon
as anything imported it.
"""

from .advice import Advice, advise
from .estimate import Estimate, estimate
from .goal import Goal, parse_goal
from .limits import Limits, Range, read_limits
from .loop import Exposures, exposures
from .outcome import End, Outcome
from .predict import Interval, Quality, predict

__all__ = [
    "Advice",
    "End",
    "Estimate",
    "Exposures",
    "Goal",
    "Interval",
    "Limits",
    "Outcome",
    "Quality",
    "Range",
    "advise",
    "estimate",
    "exposures",
    "parse_goal",
    "predict",
    "read_limits",
]
