"""Scans from other programs and volumes for them: tomopy and algotom (arrays), CIL; httomo is in a module of its own.

Nothing of theirs is imported before it is needed, and nothing of quietray imports this.
"""

from __future__ import annotations

from quietray.adapters.arrays import from_tomopy
from quietray.adapters.cil import from_cil, to_cil

__all__ = ["from_cil", "from_tomopy", "to_cil"]
