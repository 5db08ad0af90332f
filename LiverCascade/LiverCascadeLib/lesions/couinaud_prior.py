"""Where landmarks lie in a mean liver: written by Testing/couinaud_eval.py from organ label maps."""

from __future__ import annotations

# How many livers the means are of; the fewest that show a landmark: 23.
LIVERS = 30
# From the liver's centroid, RAS mm.
OFFSETS: dict[str, tuple[float, float, float]] = {
    "inferior_vena_cava": (-49.7, -10.5, 51.6),
    "gallbladder_fossa": (10.7, 28.5, -36.2),
    "umbilical_fissure": (-40.4, 30.4, 15.3),
    "portal_bifurcation": (-27.2, 9.9, -2.3),
}
# Root mean square distance from the mean along one axis, mm.
SPREADS: dict[str, float] = {
    "inferior_vena_cava": 9.5,
    "gallbladder_fossa": 15.0,
    "umbilical_fissure": 8.9,
    "portal_bifurcation": 8.1,
}
