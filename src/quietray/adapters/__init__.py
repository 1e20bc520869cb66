"""Conversion of scans from other programs and of volumes for them: tomopy and algotom (arrays), CIL, httomo.

Other programs are only imported when they are needed, and no other module of quietray imports this package.
"""

from __future__ import annotations

from quietray.adapters.arrays import from_tomopy
from quietray.adapters.cil import from_cil, to_cil

__all__ = ["from_cil", "from_tomopy", "to_cil"]
