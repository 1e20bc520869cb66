"""Numerical precision of networks."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["precision"]


def precision(
    choice: Literal["auto", "bf16", "fp32"], device: torch.device | None = None
) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's name of the precision; ``auto`` depends on the device, by default the CPU.

    Examples
    --------
    >>> precision("fp32")
    '32-true'
    """
    if choice == "auto":
        on_gpu = device is not None and device.type == "cuda"
        fast = torch.cuda.is_bf16_supported() if on_gpu else _cpu_has_bf16()
        choice = "bf16" if fast else "fp32"
    return "bf16-mixed" if choice == "bf16" else "32-true"


def _cpu_has_bf16() -> bool:
    capabilities = torch.backends.cpu.get_capabilities() if hasattr(torch.backends.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("amx_bf16", capabilities.get("amx_tile", False)) or torch.cpu._is_avx512_bf16_supported()
    )
