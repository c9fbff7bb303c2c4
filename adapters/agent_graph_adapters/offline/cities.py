"""The packaged table of large cities: time zones, and sample weather that is nobody's measurement."""

from __future__ import annotations

import difflib
import functools
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

__all__ = ["City", "countries", "find", "near", "table"]


@dataclass(frozen=True, slots=True)
class City:
    """A row of the table."""

    name: str
    country: str
    timezone: str
    """Its IANA name."""
    temperature_c: int
    conditions: str
    humidity_percent: int
    wind_kmh: int


@functools.cache
def table() -> Mapping[str, City]:
    """Return the cities by folded name, other names of theirs included."""
    text = resources.files("agent_graph_adapters.offline").joinpath("cities.json").read_text(encoding="utf-8")
    cities: dict[str, City] = {}
    for row in json.loads(text)["cities"]:
        also = row.pop("also", [])
        city = City(**row)
        cities |= {folded(name): city for name in [city.name, *also]}
    return cities


def find(name: str) -> City | None:
    """Return the city called `name`, whatever its case and accents; "Paris, France" is Paris."""
    return table().get(folded(name)) or table().get(folded(name.partition(",")[0]))


def near(name: str) -> list[str]:
    """Return the cities whose names are most like `name`, at most three."""
    keys = difflib.get_close_matches(folded(name), table(), n=3, cutoff=0.6)
    return list(dict.fromkeys(table()[key].name for key in keys))


@functools.cache
def countries() -> frozenset[str]:
    """Return the folded names of the countries in the table, for "Paris, France"."""
    return frozenset({folded(city.country) for city in table().values()} | {"usa", "us", "uk", "england", "uae"})


def folded(name: str) -> str:
    """Return `name` without case, accents, dots and doubled blanks."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return " ".join("".join(char for char in plain if not unicodedata.combining(char)).replace(".", " ").replace("-", " ").split())
