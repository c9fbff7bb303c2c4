"""The demo tools: weather, calculator, current time. All are idempotent and say so."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool, ToolException, tool

from agent_graph_adapters.offline import cities
from agent_graph_adapters.offline.arithmetic import ArithmeticProblem, evaluate

__all__ = ["demo_tools", "live_weather"]

SAMPLE = "SAMPLE DATA, not a measurement"
GEOCODING_URL = "https://geocoding-api.open-meteo.com/v1/search"
FORECAST_URL = "https://api.open-meteo.com/v1/forecast"
LIVE_TIMEOUT_S = 8.0
"""Of each of the two requests that live weather takes."""

# WMO code table 4677, as Open-Meteo uses it (https://open-meteo.com/en/docs).
_SKY = {
    0: "clear",
    1: "mainly clear",
    2: "partly cloudy",
    3: "overcast",
    **dict.fromkeys((45, 48), "fog"),
    **dict.fromkeys((51, 53, 55, 56, 57), "drizzle"),
    **dict.fromkeys((61, 63, 65, 66, 67), "rain"),
    **dict.fromkeys((71, 73, 75, 77), "snow"),
    **dict.fromkeys((80, 81, 82), "rain showers"),
    **dict.fromkeys((85, 86), "snow showers"),
    **dict.fromkeys((95, 96, 99), "thunderstorm"),
}


def demo_tools(live: bool = False) -> list[BaseTool]:
    """Return `weather(city)`, `calculator(expression)` and `current_time(city)`.

    Weather comes from a packaged table and is marked as sample data; with `live`, from Open-Meteo
    (https://open-meteo.com, no key). A tool that cannot answer raises `ToolException`, which the model is told.
    """
    return [_live_weather if live else _weather, _calculator, _current_time]


@tool("weather", extras={"idempotent": True})
async def _weather(city: str) -> dict[str, Any]:
    """Weather of a large city: temperature, how hot or cold it is, rain, wind, humidity.

    The values are SAMPLE DATA, not a measurement.
    """
    found = cities.find(city)
    if found is None:
        raise ToolException(_unknown_city(city))
    return {
        "city": found.name,
        "country": found.country,
        "summary": f"{found.temperature_c} °C, {found.conditions}",
        "temperature_c": found.temperature_c,
        "conditions": found.conditions,
        "humidity_percent": found.humidity_percent,
        "wind_kmh": found.wind_kmh,
        "note": SAMPLE,
    }


@tool("weather", extras={"idempotent": True})
async def _live_weather(city: str) -> dict[str, Any]:
    """Current weather of a city: temperature, how hot or cold it is, rain, wind, humidity."""
    return await live_weather(city)


@tool("calculator", extras={"idempotent": True})
async def _calculator(expression: str) -> int | float:
    """Calculate an arithmetic expression: add, subtract, multiply, divide, powers, parentheses, as in (17 * 23) / 2."""
    try:
        return evaluate(expression)
    except ArithmeticProblem as problem:
        raise ToolException(str(problem)) from problem


@tool("current_time", extras={"idempotent": True})
async def _current_time(city: str) -> dict[str, Any]:
    """Current local time and date, by the clock, in a city or an IANA time zone such as Europe/Paris."""
    zone = _zone(city)
    now = dt.datetime.now(zone)
    return {
        "city": city,
        "summary": f"{now:%H:%M} on {now:%A}, {now.day} {now:%B %Y}",
        "iso": now.isoformat(timespec="seconds"),
        "timezone": zone.key,
    }


async def live_weather(city: str, *, geocoding_url: str = GEOCODING_URL, forecast_url: str = FORECAST_URL) -> dict[str, Any]:
    """Return the current weather of `city` from Open-Meteo.

    Raises:
        ToolException: there is no such place, or the service cannot be reached or read.
    """
    import httpx

    try:
        async with httpx.AsyncClient(timeout=LIVE_TIMEOUT_S) as client:
            places = await _fetched(client, geocoding_url, {"name": city, "count": 1, "language": "en"})
            if not places.get("results"):
                raise ToolException(f"The weather service knows no place named {city!r}.")
            place = places["results"][0]
            current = "temperature_2m,relative_humidity_2m,weather_code,wind_speed_10m"
            where = {"latitude": place["latitude"], "longitude": place["longitude"], "current": current}
            return _report(place, (await _fetched(client, forecast_url, where))["current"])
    except httpx.HTTPError as error:
        raise ToolException(f"The weather service cannot be reached: {str(error) or type(error).__name__}. Try again later.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ToolException(f"The weather service gave an answer that cannot be read ({type(error).__name__}: {error}).") from error


async def _fetched(client: Any, url: str, params: Mapping[str, Any]) -> dict[str, Any]:
    response = await client.get(url, params=dict(params))
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    return body


def _report(place: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    sky = _SKY.get(int(now["weather_code"]), "unknown sky")
    return {
        "city": place["name"],
        "country": place.get("country"),
        "summary": f"{now['temperature_2m']} °C, {sky}",
        "temperature_c": now["temperature_2m"],
        "conditions": sky,
        "humidity_percent": now["relative_humidity_2m"],
        "wind_kmh": now["wind_speed_10m"],
        "source": f"Open-Meteo, {now['time']} UTC",
    }


def _unknown_city(city: str) -> str:
    near = cities.near(city)
    hint = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"It has {len(set(cities.table().values()))} large cities, among them Paris, Tokyo and Cairo."
    )
    return f"The sample table has no city {city[:80]!r}. {hint}"


def _zone(city: str) -> zoneinfo.ZoneInfo:
    if (found := cities.find(city)) is not None:
        key = found.timezone
    else:
        key = _zone_keys().get(cities.folded(city).replace("_", " ")) or _zone_keys().get(cities.folded(city.partition(",")[0]), "")
    if not key:
        raise ToolException(_unknown_zone(city))
    try:
        return zoneinfo.ZoneInfo(key)
    except zoneinfo.ZoneInfoNotFoundError as error:
        raise ToolException(f"This system has no time zone data for {key}: install it with 'pip install tzdata'.") from error


@functools.cache
def _zone_keys() -> Mapping[str, str]:
    """Return the system's time zones by folded name, and by the city at its end ("Europe/Paris", "Paris")."""
    keys = sorted(zoneinfo.available_timezones())
    by_city = {cities.folded(key.rpartition("/")[2].replace("_", " ")): key for key in keys}
    return by_city | {cities.folded(key.replace("_", " ")): key for key in keys}


def _unknown_zone(city: str) -> str:
    if not _zone_keys():
        return "This system has no time zone data: install it with 'pip install tzdata'."
    near = cities.near(city)
    hint = f"Did you mean {near[0]}?" if near else "Name a large city, or an IANA zone such as Europe/Paris."
    return f"No time zone is known for {city[:80]!r}. {hint}"
