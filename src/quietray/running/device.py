"""Devices for computing: the CPU, a GPU, or several for training."""

from __future__ import annotations

import re

import torch

from quietray.errors import ResourceError, SettingsError
from quietray.settings import parse_bytes

__all__ = [
    "chosen_device",
    "chosen_devices",
    "device_memory",
    "device_name",
    "gpu_count",
    "require_device_name",
    "require_gpus",
    "training_memory",
]

_TO_TRAIN_IN = 0.8  # of the free memory of a GPU


def gpu_count() -> int:
    """Return the number of CUDA GPUs that PyTorch can use.

    Examples
    --------
    >>> gpu_count() >= 0
    True
    """
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


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
    count = gpu_count()
    if text == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if text == "cpu":
        return torch.device("cpu")
    index = int(text.partition(":")[2] or 0)
    if index >= count:
        there = f"{count} of them" if count else "a machine without one that PyTorch can use"
        raise ResourceError(f"the device {text} must be a CUDA GPU, got {there}; use --device auto, or --device cpu")
    return torch.device("cuda", index)


def require_gpus(device: str, gpus: int) -> None:
    """Raise unless so many processes can train on what a device is called.

    Raises
    ------
    SettingsError
        There is none, or the device is a single GPU.

    Examples
    --------
    >>> require_gpus("cuda:1", 2)
    Traceback (most recent call last):
    quietray.errors.SettingsError: the device must be auto, cuda or cpu for several gpus=, got 'cuda:1'; choose GPUs
    with CUDA_VISIBLE_DEVICES
    """
    if gpus < 1:
        raise SettingsError(f"--gpus must be at least 1, got {gpus}; 1 trains in one process")
    if gpus > 1 and ":" in device:
        raise SettingsError(
            f"the device must be auto, cuda or cpu for several --gpus, got '{device}'; choose GPUs with "
            "CUDA_VISIBLE_DEVICES"
        )


def chosen_devices(text: str = "auto", gpus: int = 1) -> tuple[torch.device, ...]:
    """Return the devices on which a network is trained, one for each process.

    Raises
    ------
    SettingsError
        The text is not the name of a device, or that of a single one for several processes.
    ResourceError
        There are fewer GPUs.

    Examples
    --------
    >>> chosen_devices("cpu", 2)
    (device(type='cpu'), device(type='cpu'))
    """
    require_gpus(text, gpus)
    if gpus == 1 or text == "cpu":
        return (chosen_device(text),) * gpus
    count = gpu_count()
    if gpus > count:
        raise ResourceError(
            f"--gpus must be at most the number of CUDA GPUs that PyTorch can use here, {count}, got {gpus}; give "
            "fewer, or --device cpu for that many processes on CPUs"
        )
    return tuple(torch.device("cuda", index) for index in range(gpus))


def training_memory(device: torch.device, stated: str | None = None) -> int | None:
    """Return the bytes of GPU memory for the data used in training; None on the CPU.

    Parameters
    ----------
    device
        Where the network is trained.
    stated
        Largest size, such as ``8G``; None for 80 % of what is free.

    Examples
    --------
    >>> training_memory(torch.device("cpu"), "8G") is None
    True
    """
    free = device_memory(device)
    if free is None:
        return None
    return min(free, parse_bytes(stated)) if stated else int(_TO_TRAIN_IN * free)


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
