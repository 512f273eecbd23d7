r"""Pictures of densities, samples, p-values, streams, reasons and training: matplotlib axes in and out.

Every function draws in the axes that it is given, or in a new figure that no global state knows, and returns the axes. So
``ax.figure.savefig("picture.png")`` writes a picture anywhere, and ``ax=plt.gca()`` draws in a figure of pyplot. The colors
are those of Okabe and Ito (2008), which people who are color-blind can tell apart. A name such as ``r"$\sigma_1$"`` is a formula, and
``$`` in other names, such as "from $5 to $10", is a letter.
"""

from pushforward.plot.axes import COLORS
from pushforward.plot.density import density
from pushforward.plot.explanation import explanation
from pushforward.plot.heat_map import heat_map
from pushforward.plot.samples import images, samples
from pushforward.plot.scores import scores
from pushforward.plot.stream import martingale
from pushforward.plot.training import training
from pushforward.plot.uniform import coverage, p_values

__all__ = [
    "COLORS",
    "coverage",
    "density",
    "explanation",
    "heat_map",
    "images",
    "martingale",
    "p_values",
    "samples",
    "scores",
    "training",
]
