"""What a test or an example registers is gone when it ends, so that none depends on those that ran before it."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# The window of the plug-in can be imported where there is a viewer only.
_WINDOW = [f"src/quietray/napari/{name}.py" for name in ("widget", "from_layers")]
collect_ignore = [] if find_spec("napari") and find_spec("qtpy") else _WINDOW


@pytest.fixture(autouse=True)
def _own_kinds_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test see what quietray registers, and what its own module does."""
    from quietray.registry import Registered, Registry

    registries: list[Registry] = [vars(base)["registry"] for base in _below(Registered) if "registry" in vars(base)]
    before = {id(one): dict(one._kinds) for one in registries}
    here = request.module.__name__ if request.module else None
    for one in registries:
        one._kinds = {name: kind for name, kind in one._kinds.items() if _of(kind.__module__, here)}
    yield
    for one in registries:
        one._kinds = before[id(one)]


def _of(module: str, here: str | None) -> bool:
    return module == here or module.partition(".")[0] == "quietray"


def _below(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)
