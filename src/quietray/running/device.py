"""Where the work is done: on the processors, or on one GPU."""

from __future__ import annotations

import re

import torch

from quietray.errors import ResourceError, SettingsError

__all__ = ["chosen_device", "device_memory", "device_name", "require_device_name"]


def require_device_name(text: str) -> None:
    """Raise unless this can name a device.

    Raises
    ------
    SettingsError
        It cannot.

    Examples
    --------
    >>> require_device_name("gpu")
    Traceback (most recent call last):
    quietray.errors.SettingsError: the device must be auto, cpu, cuda, or one of several such as cuda:1, got 'gpu'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise SettingsError(f"the device must be auto, cpu, cuda, or one of several such as cuda:1, got '{text}'")


def chosen_device(text: str = "auto") -> torch.device:
    """Return the device of this name; ``auto`` is the first GPU where there is one, else the processors.

    Raises
    ------
    SettingsError
        It is not the name of a device.
    ResourceError
        There is no such GPU.

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
    """Return what a device is called in reports.

    Examples
    --------
    >>> device_name(torch.device("cpu"))
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def device_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a GPU, what PyTorch keeps there for itself included; None for processors.

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
