"""Description of a scan, and of how a run would fit into memory."""

from __future__ import annotations

from quietray.errors import ResourceError
from quietray.running.device import chosen_device, device_name, gpu_count
from quietray.running.plan import plan_run
from quietray.scan import Scan
from quietray.settings import parse_bytes

__all__ = ["describe"]


def describe(scan: Scan, max_memory: str | None = None) -> dict[str, str]:
    """Return a description of a scan, and of how a run would fit into memory, as text by name.

    Parameters
    ----------
    scan
        Only its geometry and shapes are used.
    max_memory
        Memory to plan with, such as ``8G``.

    Raises
    ------
    SettingsError
        `max_memory` is not a size.

    Examples
    --------
    >>> import numpy as np
    >>> describe(Scan.from_arrays(np.ones((8, 2, 5), np.uint16), np.arange(8) * 22.5))["projections"]
    '8 views of 2 x 5, uint16, 0.0 MB'
    """
    memory = parse_bytes(max_memory) if max_memory else None
    grid = scan.geometry.grid()
    try:
        plan = plan_run(scan, range(scan.n_rows), grid, parts=4, n_slices=7, memory=memory).describe()
    except ResourceError as error:
        plan = str(error)
    notes = {f"note {index}": note for index, note in enumerate(scan.notes, 1)}
    device, count = device_name(chosen_device()), gpu_count()
    if count > 1:
        device += f", the first of {count} GPUs"
    return scan.describe() | {"memory plan": plan, "device": device} | notes
