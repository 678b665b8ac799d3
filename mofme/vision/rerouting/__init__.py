"""Test-time re-routing of the restorer, R2-T2 (arXiv 2502.20395): experts as they served pictures like this one.

A reference set of synthesized pairs that the net solved is kept as numbers: where each lies in the net's own features,
how it was routed, and the step by which gradient descent would have routed it better.
"""

from mofme.vision.rerouting.references import METHODS, SHIPPED, Method, References
from mofme.vision.rerouting.rerouter import Neighbour, Rerouted, Rerouter, explain

__all__ = ["METHODS", "SHIPPED", "Method", "Neighbour", "References", "Rerouted", "Rerouter", "explain"]
