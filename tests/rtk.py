"""What tests of cone beams need."""

import pytest


def require_rtk() -> None:
    """Skip the test where cone beams cannot be projected on the CPU."""
    itk = pytest.importorskip("itk", reason="needs RTK, not found; run: pip install 'quietray[cone]'")
    if not hasattr(itk, "RTK"):
        pytest.skip("needs RTK, found ITK without it; run: pip install 'quietray[cone]'")
