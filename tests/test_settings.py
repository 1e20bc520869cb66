"""Settings go to TOML and back unchanged, and nothing that a user mistypes is ignored."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quietray.errors as errors
from quietray.errors import FormatError, MissingExtra, QuietrayError, SettingsError, nearest, require
from quietray.settings import from_dict, parse_bytes, parse_seconds, read_toml, to_dict, write_toml


@dataclass(frozen=True)
class Network:
    """A nested table."""

    depth: int = 3
    kind: Literal["unet", "msd"] = "unet"


@dataclass(frozen=True)
class Run:
    """One entry of every type that settings use."""

    budget: str = "10m"
    seed: int = 0
    rate: float = 1e-3
    resume: bool = False
    max_memory: str | None = None
    region: tuple[int, int] = (0, 1)
    radii: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    network: Network = field(default_factory=Network)
    other: Network | None = None
    limit: int | Literal["all"] | None = 8
    where: Path = Path("out")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
not_none = text.filter(lambda word: word != "none")
runs = st.builds(
    Run,
    budget=text,
    seed=st.integers(-(2**63), 2**63 - 1),
    rate=st.floats(allow_nan=False),
    resume=st.booleans(),
    max_memory=st.none() | not_none,
    region=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    radii=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    names=st.lists(text, max_size=3).map(tuple),
    network=st.builds(Network, depth=st.integers(0, 9), kind=st.sampled_from(["unet", "msd"])),
    other=st.none() | st.builds(Network, depth=st.integers(0, 9)),
    limit=st.none() | st.just("all") | st.integers(0, 9),
    where=st.sampled_from([Path("."), Path("/data/scan 1"), Path("a", "ü")]),
)


@given(runs)
def test_toml_round_trip(run: Run) -> None:
    assert from_dict(Run, tomllib.loads(write_toml(run))) == run


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    run = Run(seed=7, names=("a", 'quote " and \\'), network=Network(depth=5))
    path = tmp_path / "run.toml"
    path.write_text(write_toml(run), encoding="utf-8")
    assert from_dict(Run, read_toml(path)) == run


def test_what_is_not_said_keeps_its_default() -> None:
    assert from_dict(Run, {}) == Run()
    assert from_dict(Run, {"network": {"depth": 9}}) == Run(network=Network(depth=9))


def test_none_is_left_out_where_it_is_the_default() -> None:
    assert "max_memory" not in to_dict(Run())
    assert to_dict(Run(max_memory="8G"))["max_memory"] == "8G"


def test_settings_stay_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_dict(Run, {"seed": 1}).seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("table", "place", "meant"),
    [
        ({"buget": "10m"}, "'buget'", "'budget'"),
        ({"Seed": 1}, "'Seed'", "'seed'"),
        ({"max-memory": "8G"}, "'max-memory'", "'max_memory'"),
        ({"network": {"dept": 2}}, "'network.dept'", "'depth'"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest(table: dict[str, Any], place: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_dict(Run, table)
    assert str(caught.value).startswith(place)
    assert f"did you mean {meant}?" in str(caught.value)


def test_an_unknown_key_near_to_nothing_lists_what_is_known() -> None:
    with pytest.raises(SettingsError, match="known here: depth, kind") as caught:
        from_dict(Network, {"zzz": 1})
    assert "did you mean" not in str(caught.value)


def test_where_names_the_table_in_messages() -> None:
    with pytest.raises(SettingsError, match=r"'training\.dept'"):
        from_dict(Network, {"dept": 1}, where="training")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "3"),
        ("seed", 1.5),
        ("seed", True),
        ("seed", [1]),
        ("rate", "fast"),
        ("rate", True),
        ("rate", 10**400),
        ("seed", "none"),
        ("where", 1),
        ("limit", "half"),
        ("limit", True),
        ("resume", "yes"),
        ("resume", 1.0),
        ("resume", 1),
        ("budget", 1.5),
        ("budget", True),
        ("budget", 600),
        ("budget", [1]),
        ("max_memory", 8),
        ("region", 3),
        ("region", [1, 2, 3]),
        ("region", "12"),
        ("region", [1, True]),
        ("region", [1.5, 2]),
        ("region", ["1", "2"]),
        ("radii", ["1"]),
        ("names", "abc"),
        ("names", [1]),
        ("network", "unet"),
        ("other", {"dept": 2}),
        ("other", {"depth": "2"}),
        ("other", "unet"),
    ],
)
def test_a_wrong_type_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        from_dict(Run, {key: value})
    assert str(caught.value).startswith(f"'{key}")
    assert "must be" in str(caught.value)
    assert ", got " in str(caught.value)


def test_a_whole_number_is_a_float() -> None:
    rate = from_dict(Run, {"rate": 1}).rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_a_word_out_of_a_list_names_the_list_and_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unet.*msd.*got 'unett' \(did you mean 'unet'\?\)"):
        from_dict(Network, {"kind": "unett"})


def test_an_entry_of_a_list_is_named_by_its_index() -> None:
    with pytest.raises(SettingsError, match=r"'region\[1\]' must be an integer, got 2\.5; write for example 3"):
        from_dict(Run, {"region": [1, 2.5]})


def test_a_union_says_all_that_it_takes() -> None:
    with pytest.raises(SettingsError, match="an integer or one of 'all' or \"none\", got 'half'"):
        from_dict(Run, {"limit": "half"})


def test_a_mistake_in_an_optional_table_is_named_in_full() -> None:
    with pytest.raises(
        SettingsError, match=r"'other\.dept' must be a known setting, got 'dept' \(did you mean 'depth'\?\)"
    ):
        from_dict(Run, {"other": {"dept": 2}})


@dataclass(frozen=True)
class Needs:
    """An entry without a default, in a table without one."""

    path: str
    seed: int = 0


@dataclass(frozen=True)
class Outer:
    """The same, one level down."""

    needs: Needs


def test_a_missing_key_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"'path' must be a text, got nothing; add for example path = \"text\""):
        from_dict(Needs, {})
    with pytest.raises(SettingsError, match=r"'needs\.path' must be a text, got nothing"):
        from_dict(Outer, {"needs": {"seed": 1}})


@dataclass(frozen=True)
class Limit:
    """Entries that may be None and are not by default."""

    memory: str | None = "8G"
    network: Network | None = field(default_factory=Network)
    radius: tuple[float | None, ...] = (1.0,)
    folder: Path | None = None


@pytest.mark.parametrize(
    "limit", [Limit(), Limit(memory=None), Limit(network=None), Limit(memory="None"), Limit(radius=(None, 2.0))]
)
def test_none_survives_where_the_default_is_something(limit: Limit) -> None:
    assert from_dict(Limit, tomllib.loads(write_toml(limit))) == limit


def test_none_is_written_as_a_word_where_it_is_not_the_default() -> None:
    assert to_dict(Limit(memory=None))["memory"] == "none"


def test_the_word_for_none_is_refused_where_it_would_come_back_as_none() -> None:
    with pytest.raises(SettingsError, match="'memory' must not be a text that means None, got 'none'"):
        to_dict(Limit(memory="none"))
    with pytest.raises(SettingsError, match="'folder' must not be"):
        to_dict(Limit(folder=Path("none")))
    assert from_dict(Run, to_dict(Run(budget="none"))).budget == "none"


@dataclass(frozen=True)
class Median:
    """One of several tables, under a name of its own."""

    called: ClassVar[str] = "middle"
    size: int = 3


@dataclass(frozen=True)
class Either:
    """A table that says by its name which class it is."""

    method: Network | Median = field(default_factory=Network)


@pytest.mark.parametrize("value", [Either(), Either(Median()), Either(Median(9)), Either(Network(depth=5))])
def test_a_table_that_may_be_several_classes_says_which(value: Either) -> None:
    assert from_dict(Either, tomllib.loads(write_toml(value))) == value
    assert to_dict(value)["method"]["name"] in ("network", "middle")


def test_a_name_stands_for_its_table_and_no_name_for_the_usual_one() -> None:
    assert from_dict(Either, {"method": "middle"}) == Either(Median())
    assert from_dict(Either, {"method": {"depth": 4}}) == Either(Network(depth=4))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("mean", "'method' must be one of network, middle, got 'mean'"),
        ({"name": "midle"}, r"got 'midle' \(did you mean 'middle'\?\)"),
        ({"name": "middle", "depth": 3}, "'method.depth' must be a known setting"),
        (7, "must be a table or a name, got 7"),
    ],
)
def test_a_name_that_is_not_there_is_refused(table: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        from_dict(Either, {"method": table})


@dataclass(frozen=True)
class Untold:
    """A type that TOML entries cannot be checked against."""

    stuff: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(("kind", "key"), [(Untold, "stuff")])
def test_a_type_that_cannot_be_checked_is_the_programmers_mistake(kind: type[Any], key: str) -> None:
    with pytest.raises(TypeError, match="a setting must be"):
        from_dict(kind, {key: {}})


def test_a_missing_file_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"must exist, got .*absent\.toml"):
        read_toml(tmp_path / "absent.toml")


def test_a_broken_file_is_a_format_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("seed = \n")
    with pytest.raises(FormatError, match=r"broken\.toml must be TOML, got: .*line 1"):
        read_toml(path)


def test_a_file_that_is_no_text_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\xff\xff")
    with pytest.raises(FormatError, match=r"scan\.h5"):
        read_toml(path)


def test_a_folder_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"must be a readable file, got .*{tmp_path.name}"):
        read_toml(tmp_path)


def test_lists_nested_beyond_reason_are_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("seed = " + "[" * 5000)
    with pytest.raises(FormatError, match=r"deep\.toml must be TOML"):
        read_toml(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        (".5h", 1800),
        ("2d", 172_800),
        (" 1 h ", 3600),
        ("10M", 600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "0", "0s", "-5m", "10 minutes", "1h30m", "ten", "nan", "inf", "1e3", "9" * 400]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_seconds(text)
    assert f"got '{text}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("512", 512),
        ("1k", 1024),
        ("500M", 500 * 1024**2),
        ("8G", 8 * 1024**3),
        ("8g", 8 * 1024**3),
        ("8GB", 8 * 1024**3),
        ("8 GiB", 8 * 1024**3),
        ("0.5T", 512 * 1024**3),
    ],
)
def test_amounts_of_memory(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "0",
        "0G",
        "-8G",
        "8X",
        "8 gigs",
        "nan",
        "0.001",
        "9" * 400,
    ],
)
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_bytes(text)
    assert f"got '{text}'" in str(caught.value)


def test_every_error_is_the_users_to_mend() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    assert len(kinds) >= 7
    assert all(issubclass(kind, QuietrayError) for kind in kinds)


@pytest.mark.parametrize(
    ("word", "said"),
    [("noise2self", " (did you mean 'noise2self'?)"), ("nosie2slef", " (did you mean 'noise2self'?)"), ("qqq", "")],
)
def test_nearest(word: str, said: str) -> None:
    assert nearest(word, iter(["noise2inverse", "noise2self", "median"])) == said


def test_nearest_of_nothing_is_nothing() -> None:
    assert nearest("seed", []) == ""


def test_require_returns_the_module_or_names_the_extra() -> None:
    assert require("tomllib", "never") is tomllib
    with pytest.raises(MissingExtra, match=r"pip install 'quietray\[cone\]'") as caught:
        require("a_module_that_nobody_wrote", "cone")
    assert "a_module_that_nobody_wrote" in str(caught.value)
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize("table", [[1, 2], "unet", 7, None])
def test_what_is_no_table_is_refused(table: object) -> None:
    with pytest.raises(SettingsError, match="'network' must be settings by name"):
        from_dict(Network, table, "network")
