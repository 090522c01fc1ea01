"""`cloud-server profiles`: what is kept is fused, shown, compared and exported."""

import json

import numpy as np
import pytest

from cloud_server.profiles.store import ProfileStore
from fleet_model.profiles.profile import Group, SourceProfile, pack_profile


def source(records, *mean, **parts):
    return SourceProfile(whole=Group(records=records, mean=np.float32(mean)), **parts)


@pytest.fixture
def told(server_dir):
    store = ProfileStore(server_dir.profiles)
    grip = {"grip": Group(records=20, mean=np.float32([1, 0]))}
    board = source(40, 1, 0, terms={"arms": 40}, topics=grip, labels={"pick": 20})
    store.save("r1", 3, pack_profile({"board": board}))
    store.save("r2", 3, pack_profile({"field": source(60, 0, 1, terms={"legs": 30})}))
    store.save("r1", 2, pack_profile({"board": source(20, 1, 0)}))
    return server_dir.root


def test_show_has_a_row_for_all_and_one_for_each_source(told, cloud_server):
    code, out, _ = cloud_server("profiles", "show", told)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["board", "1", "40", "#grip", "20", "pick", "50%", "arms"] in [
        [word for word in line if word not in "│|"] for line in lines
    ]
    assert "(all)" in out
    assert "means are those of version 3" in out
    answer = json.loads(cloud_server("profiles", "show", told, "--json")[1])
    assert answer["general"]["records"] == 100
    assert answer["sources"]["field"] == {
        "robots": ["r2"], "records": 60, "topics": {}, "labels": {}, "terms": {"legs": 30}
    }  # fmt: skip


def test_one_source_is_shown_with_all_that_is_said_of_it(told, cloud_server):
    _, out, _ = cloud_server("profiles", "show", told, "--source", "board")
    assert "40 records" in out
    assert all(word in out for word in ("#grip", "pick", "arms", "100%", "50%"))
    older = json.loads(cloud_server("profiles", "show", told, "--version", 2, "--json")[1])
    assert older["general"]["records"] == 20


def test_sources_are_compared(told, cloud_server):
    _, out, _ = cloud_server("profiles", "compare", told, "board", "field")
    assert "similarity of board and field: 0.000" in out
    assert "more often in board: arms +100%" in out
    assert "more often in field: legs +50%" in out
    every = json.loads(cloud_server("profiles", "compare", told, "--json")[1])
    assert every["similarity"]["board"] == {"board": pytest.approx(1), "field": pytest.approx(0)}
    _, out, _ = cloud_server("profiles", "compare", told, "field")
    assert "similarity of field and (all): 0.707" in out  # each robot weighs 40
    assert "0.000" in cloud_server("profiles", "compare", told)[1]


def test_export_has_the_means(told, cloud_server, tmp_path):
    assert cloud_server("profiles", "export", told, "--out", tmp_path / "p.json")[0] == 0
    answer = json.loads((tmp_path / "p.json").read_text())
    assert answer["version"] == 3
    assert answer["sources"]["board"]["topics"]["grip"] == {"records": 20, "mean": [1, 0]}
    np.testing.assert_allclose(answer["general"]["mean"], [0.5, 0.5], rtol=1e-6)


def test_what_is_not_there_is_told(told, cloud_server, server_dir):
    code, _, err = cloud_server("profiles", "show", told, "--version", 9)
    assert (code, "of version 9; there are some of 2, 3; ask for them" in err) == (2, True)
    code, _, err = cloud_server("profiles", "compare", told, "moon")
    assert (code, "there is no source 'moon', only board, field" in err) == (2, True)
    ProfileStore(server_dir.profiles).forget("r1")
    ProfileStore(server_dir.profiles).forget("r2")
    code, _, err = cloud_server("profiles", "show", told)
    assert (code, "no client has told a profile" in err) == (2, True)


def test_who_is_forgotten_has_told_nothing(told, cloud_server, server_dir):
    from cloud_server.robots.register import Register
    from edge_agent.cli.enroll import enroll
    from edge_agent.robot.settings import ExampleSettings

    line = enroll(server_dir.kit, server_dir.root.parent / "r1", ExampleSettings(), train=False)
    Register(server_dir.robots).add("r1", "hall", line)
    assert cloud_server("robots", "forget", told, "r1")[0] == 0
    assert list(ProfileStore(server_dir.profiles).of(3)) == ["r2"]


def test_a_fleet_without_profiles_says_so(server_dir, cloud_server):
    code, _, err = cloud_server("profiles", "ask", server_dir.root)
    assert code == 7, "the server does not run"
    assert "cloud-server start" in err
