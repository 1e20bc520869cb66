"""Groups of a container that hold an NXtomo scan, found by content."""

from __future__ import annotations

from quietray.io.containers import Container
from quietray.io.scans.lookup import text_at
from quietray.io.scans.raw import Flags

__all__ = ["entries_of", "keyed_stacks", "rotation_angles"]

_KEYS = ("image_key_control", "image_key")  # the first also distinguishes alignment frames from projections


def entries_of(container: Container, flags: Flags) -> list[str]:
    """Return the groups that hold scans, the preferred one first: the named one, or all that are found."""
    if flags.data is None:
        return _find_entries(container, flags)
    group = "/" + flags.data.strip("/")
    named = container.array(flags.data) is None and any(name.startswith(f"{group}/") for name in container.listing())
    return [group] if named else []


def _find_entries(container: Container, flags: Flags) -> list[str]:
    """Return the groups that hold an NXtomo scan, shallowest first.

    A group without a definition counts if it holds a stack with an image key, and if angles are known.
    """
    listing = container.listing()
    defined = [
        path.rpartition("/")[0]
        for path, (shape, _) in listing.items()
        if path.endswith("/definition")
        and shape in ((), (1,))
        and text_at(container, path).lower() in ("nxtomo", "nxtomophase")
    ]
    if defined:
        return [entry for entry in defined if keyed_stacks(container, entry)] or defined[:1]
    likely = sorted({_top(path) for path, _ in keyed_stacks(container, "")})
    return [entry for entry in likely if flags.angles or rotation_angles(container, entry)]


def keyed_stacks(container: Container, entry: str) -> list[tuple[str, str]]:
    """Return ``(data, image key)`` paths below `entry`, those in the detector's group first."""
    listing = container.listing()
    found: list[tuple[str, str]] = []
    for path, (shape, _) in listing.items():
        group, _, name = path.rpartition("/")
        if not (len(shape) == 3 or (len(shape) == 4 and 1 in shape[1:])) or not path.startswith(f"{entry}/"):
            continue
        for key in _KEYS:
            if listing.get(f"{group}/{key}", ((), None))[0] == shape[:1]:
                found.append((path, f"{group}/{key}"))
                break
        else:
            lone = [
                other
                for other, (length, _) in listing.items()
                if other.startswith(f"{entry}/") and other.rpartition("/")[2] in _KEYS and length == shape[:1]
            ]
            if lone and name == "data":
                found.append((path, min(lone, key=lambda other: _KEYS.index(other.rpartition("/")[2]))))
    return sorted(found, key=lambda pair: ("/instrument/" not in pair[0], not pair[0].endswith("/data")))


def rotation_angles(container: Container, entry: str) -> list[str]:
    """Return the paths of lists of angles below `entry`, those of the sample first."""
    found = [
        path
        for path, (shape, dtype) in container.listing().items()
        if path.startswith(f"{entry}/") and path.endswith("/rotation_angle") and len(shape) == 1 and dtype.kind in "iuf"
    ]
    return sorted(found, key=lambda path: "/sample/" not in path)


def _top(path: str) -> str:
    """Return the group two levels above a stack, or the root, which may contain its angles."""
    return "/" + path.strip("/").split("/")[0] if path.count("/") > 1 else ""
