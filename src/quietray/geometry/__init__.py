"""Where the rays go: frozen values that you slice.

``geometry[1::4]`` holds every fourth view with *its own* angles, which is all that the Noise2Inverse split needs.

Axes: x to the right and y up in a slice, z up; the first column, row and slice are those of the smallest x, the largest
y and the largest z.  At angle 0 a detector row runs along x, and a source stands at negative y, the detector behind the
object; a growing angle turns both counter-clockwise, seen from above.
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
