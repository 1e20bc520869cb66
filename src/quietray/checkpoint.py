"""Weights on disk as safetensors and JSON, never pickle; written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from quietray.errors import FormatError

__all__ = ["load_tensors", "replace_file", "save_tensors", "write_json"]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically: even after a power cut, it has either the old or the new content."""
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write `facts` as a readable JSON file, atomically."""
    replace_file(path, (json.dumps(facts, indent=2, allow_nan=False, default=str) + "\n").encode())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, and facts that can be stored as JSON, to one safetensors file, atomically."""
    from safetensors.torch import save

    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, save(contiguous, metadata={"facts": json.dumps(facts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises
    ------
    FormatError
        The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            facts = json.loads((stream.metadata() or {}).get("facts", "{}"))
            return {name: stream.get_tensor(name) for name in stream.keys()}, facts
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise FormatError(
            f"{path} must be a safetensors file written by quietray, got: {error}; train again, or copy the whole model"
        ) from error
