"""Prometheus' side of a real server process over TLS."""

import ssl

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED

PATHS = ["/metrics", "/fleetlearn/v1/admin/metrics"]


@pytest.fixture(scope="module")
def http(running_server):
    context = ssl.create_default_context(
        cafile=str(running_server.server_dir.certificates / "ca.crt")
    )
    with httpx.Client(base_url=f"https://{running_server.address}", verify=context) as client:
        yield client


@pytest.fixture
def operator(running_server):
    return {"authorization": f"Bearer {running_server.server_dir.admin_token.read_text().strip()}"}


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_sees_no_metrics(http, path):
    assert http.get(path).status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_the_operator_gets_what_prometheus_parses(http, operator, path):
    response = http.get(path, headers=operator)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(response.text)}
    assert {"fleetlearn_robots", "fleetlearn_updates", "process_resident_memory_bytes"} <= names


def test_a_round_that_closes_is_in_the_next_scrape(http, operator, running_server):
    robot = RobotRecord(name="r1", site="hall", outcome=ACCEPTED)
    record = RoundRecord(run="a", round=1, version=2, seconds=3, robots=(robot,), metrics={})

    running_server.server_dir.append_history(record.as_json())

    text = http.get("/metrics", headers=operator).text
    assert "fleetlearn_rounds_total 1.0" in text
    assert 'fleetlearn_updates_total{verdict="accepted"} 1.0' in text
    assert "fleetlearn_last_round_timestamp_seconds" in text


def test_a_damaged_register_is_said_to_be_so(http, operator, running_server):
    running_server.server_dir.robots.write_text("{")
    try:
        response = http.get("/metrics", headers=operator)
    finally:
        running_server.server_dir.robots.unlink()

    assert response.status_code == 500
    assert "robots.json" in response.json()["detail"]
