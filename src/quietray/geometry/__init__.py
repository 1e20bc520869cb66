"""Beam geometries and voxel grids, as immutable values that can be sliced.

``geometry[1::4]`` holds every fourth view with *its own* angle, which is all that Noise2Inverse needs to split the
views.

Axes: x to the right and y up in a slice, z up; the first column, row and slice have the smallest x, the largest y and
the largest z.  At angle 0, detector rows run along x, with the source at negative y and the detector at positive y.
Increasing angles turn both counter-clockwise, seen from above.
"""

from quietray.geometry.cone import ConeBeam
from quietray.geometry.fan import FanBeam
from quietray.geometry.grid import VolumeGrid, field_of_view
from quietray.geometry.kinds import Geometry, beam_told, field_told, require_parallel
from quietray.geometry.parallel import ParallelBeam
from quietray.geometry.words import angles_told

__all__ = [
    "ConeBeam",
    "FanBeam",
    "Geometry",
    "ParallelBeam",
    "VolumeGrid",
    "angles_told",
    "beam_told",
    "field_of_view",
    "field_told",
    "require_parallel",
]
