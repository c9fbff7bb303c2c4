"""The demo tools: what they return, how they fail, and live weather against a server that plays the service."""

import datetime as dt
import json
import threading
import zoneinfo
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from langchain_core.tools import BaseTool, ToolException

from agent_graph_adapters.offline import demo_tools
from agent_graph_adapters.offline.cities import table
from agent_graph_adapters.offline.tools import live_weather

TOOLS: dict[str, BaseTool] = {tool.name: tool for tool in demo_tools()}


async def call(tool: str, **args: Any) -> Any:
    return await TOOLS[tool].ainvoke(args)


@pytest.mark.parametrize("live", [False, True])
def test_names_and_marks(live: bool) -> None:
    tools = demo_tools(live)
    assert [tool.name for tool in tools] == ["weather", "calculator", "current_time"]
    assert [tool.extras for tool in tools] == [{"idempotent": True}] * 3
    assert ("SAMPLE DATA" in tools[0].description) is not live


@pytest.mark.parametrize("city", ["Paris", "paris", "PARIS", "Paris, France", " paris "])
async def test_weather_is_sample_data_and_says_so(city: str) -> None:
    report = await call("weather", city=city)
    assert report["city"] == "Paris"
    assert "SAMPLE DATA" in report["note"]
    assert report["summary"] == f"{report['temperature_c']} °C, {report['conditions']}"


@pytest.mark.parametrize(
    ("city", "found"),
    [("sao paulo", "São Paulo"), ("NYC", "New York"), ("Zürich", "Zurich"), ("zurich", "Zurich"), ("bogota", "Bogotá")],
)
async def test_cities_by_other_names(city: str, found: str) -> None:
    assert (await call("weather", city=city))["city"] == found


async def test_unknown_city_names_near_ones() -> None:
    with pytest.raises(ToolException, match="Did you mean London"):
        await call("weather", city="Londen")
    with pytest.raises(ToolException, match="large cities"):
        await call("weather", city="東京" * 1000)


def test_table_is_whole() -> None:
    cities = set(table().values())
    assert len(cities) >= 40
    assert {city.timezone for city in cities} <= zoneinfo.available_timezones()
    assert all(-30 < city.temperature_c < 45 and 0 < city.humidity_percent <= 100 and city.wind_kmh >= 0 for city in cities)


async def test_calculator() -> None:
    assert await call("calculator", expression="17 * 23") == 391
    with pytest.raises(ToolException, match="division by zero"):
        await call("calculator", expression="1/0")


@pytest.mark.parametrize(
    ("city", "zone"),
    [
        ("Tokyo", "Asia/Tokyo"), ("new york", "America/New_York"), ("Europe/Paris", "Europe/Paris"), ("utc", "UTC"),
        ("Reykjavik", "Atlantic/Reykjavik"), ("Kathmandu", "Asia/Kathmandu"), ("Los Angeles", "America/Los_Angeles"),
    ],
)  # fmt: skip
async def test_current_time(city: str, zone: str) -> None:
    report = await call("current_time", city=city)
    assert report["timezone"] == zone
    told = dt.datetime.fromisoformat(report["iso"])
    assert told.utcoffset() == told.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()
    assert abs(dt.datetime.now(dt.UTC) - told) < dt.timedelta(minutes=1)


async def test_unknown_time_zone() -> None:
    with pytest.raises(ToolException, match="Did you mean Tokyo"):
        await call("current_time", city="Tokio")
    with pytest.raises(ToolException, match="IANA"):
        await call("current_time", city="Atlantis")


# -- live weather ------------------------------------------------------------------------------------------------------


class Service(BaseHTTPRequestHandler):
    """Plays Open-Meteo's two addresses."""

    place: ClassVar[Any] = {"results": [{"name": "Paris", "country": "France", "latitude": 48.85, "longitude": 2.35}]}
    now: ClassVar[Any] = {
        "current": {
            "time": "2026-05-01T12:00",
            "temperature_2m": 17.4,
            "relative_humidity_2m": 60,
            "weather_code": 3,
            "wind_speed_10m": 9.7,
        }
    }
    status = 200
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(self.place if self.path.startswith("/search") else self.now).encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    handler = type("Playing", (Service,), {"asked": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def ask(url: str, city: str = "Paris") -> dict[str, Any]:
    return await live_weather(city, geocoding_url=f"{url}/search", forecast_url=f"{url}/forecast")


async def test_live_weather(service: Any) -> None:
    handler, url = service
    report = await ask(url)
    assert (report["summary"], report["wind_kmh"]) == ("17.4 °C, overcast", 9.7)
    assert "SAMPLE" not in str(report)
    assert "2026-05-01T12:00" in report["source"]
    assert "latitude=48.85" in handler.asked[1]


async def test_live_weather_of_nowhere(service: Any) -> None:
    handler, url = service
    handler.place = {"generationtime_ms": 0.5}
    with pytest.raises(ToolException, match="knows no place named 'Nowhere'"):
        await ask(url, "Nowhere")


@pytest.mark.parametrize(
    ("status", "now", "says"),
    [(503, {}, "cannot be reached"), (200, {"odd": 1}, "cannot be read"), (200, [], "cannot be read")],
)
async def test_live_weather_that_fails(service: Any, status: int, now: Any, says: str) -> None:
    handler, url = service
    handler.status, handler.now = status, now
    with pytest.raises(ToolException, match=says):
        await ask(url)


async def test_live_weather_without_network() -> None:
    with pytest.raises(ToolException, match="cannot be reached"):
        await ask("http://127.0.0.1:9")
