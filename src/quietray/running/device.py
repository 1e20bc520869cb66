"""Device for computing: the CPU, or one GPU."""

from __future__ import annotations

import re

import torch

from quietray.errors import ResourceError, SettingsError

__all__ = ["chosen_device", "device_memory", "device_name", "require_device_name"]


def require_device_name(text: str) -> None:
    """Raise unless the text can be the name of a device.

    Raises
    ------
    SettingsError
        The text is not the name of a device.

    Examples
    --------
    >>> require_device_name("gpu")
    Traceback (most recent call last):
    quietray.errors.SettingsError: the device must be auto, cpu, cuda, or one of several such as cuda:1, got 'gpu'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise SettingsError(f"the device must be auto, cpu, cuda, or one of several such as cuda:1, got '{text}'")


def chosen_device(text: str = "auto") -> torch.device:
    """Return the device of this name; ``auto`` is the first GPU if there is one, else the CPU.

    Raises
    ------
    SettingsError
        The text is not the name of a device.
    ResourceError
        The GPU does not exist.

    Examples
    --------
    >>> chosen_device("cpu")
    device(type='cpu')
    """
    require_device_name(text)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if text == "cpu":
        return torch.device("cpu")
    index = int(text.partition(":")[2] or 0)
    if index >= count:
        there = f"{count} of them" if count else "a machine without one that PyTorch can use"
        raise ResourceError(f"the device {text} must be a CUDA GPU, got {there}; use --device auto, or --device cpu")
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """Return the name of a device for reports.

    Examples
    --------
    >>> device_name(torch.device("cpu"))
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def device_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU, including unused memory reserved by PyTorch; None for the CPU.

    Examples
    --------
    >>> device_memory(torch.device("cpu")) is None
    True
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + kept)
