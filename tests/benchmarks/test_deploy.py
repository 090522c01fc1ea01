"""What benchmarks.deploy counts, where a mistake would flatter one side."""

import os
import socket
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from benchmarks import deploy
from benchmarks.deploy_camera import PERIOD_S, Answered, longest_pause_s, lost, read
from benchmarks.deploy_plain import folder_on_https
from benchmarks.measure import lines, wait_until
from benchmarks.relay import Relay
from benchmarks.services import Services
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory

ROOT = Path(__file__).resolve().parents[2]


def camera(*ticks, late_s=0.01):
    """Return answers to frames by their number."""
    return [Answered(tick * PERIOD_S, tick * PERIOD_S + late_s, "1") for tick in ticks]


def test_frames_that_nobody_answered_are_lost_and_late_answers_are_not():
    answers = camera(0, 1, 2, 5, 6, 9)
    assert lost(answers, 0.0, 10.0) == 4
    assert lost(answers, 0.0, 2.5 * PERIOD_S) == 0
    assert lost(camera(0, 1, 2, late_s=0.03), 0.0, 10.0) == 0
    assert longest_pause_s(answers, 0.0, 10.0) == pytest.approx(3 * PERIOD_S)


def test_a_line_that_is_being_written_does_not_count(tmp_path):
    out = tmp_path / "answers.txt"
    assert read(out) == []
    out.write_text("1.0000 1.0100 3\n1.0333 1.0400 4\n1.06")
    assert read(out) == [Answered(1.0, 1.01, "3"), Answered(1.0333, 1.04, "4")]


def test_the_relay_counts_bytes_both_ways_and_each_question_once():
    with socket.create_server(("127.0.0.1", 0)) as service:

        def answer_each():
            connection, _ = service.accept()
            with connection, connection.makefile("rb") as asked:
                for question in asked:
                    connection.sendall(question * 2)

        threading.Thread(target=answer_each, daemon=True).start()
        with Relay(service.getsockname()[1]) as relay:
            with socket.create_connection(("127.0.0.1", relay.port)) as client:
                client.sendall(b"half ")
                wait_until("half", lambda: relay.bytes == 5, patience_s=60, step_s=0.01)
                for question, asked in ((b"a question\n", 16), (b"another\n", 8)):
                    client.sendall(question)
                    client.recv(2 * asked, socket.MSG_WAITALL)
            assert (relay.turns, relay.bytes) == (2, 3 * (16 + 8))


def test_the_plain_script_fetches_what_has_changed_and_nothing_else(tmp_path):
    server_dir = ServerDirectory(tmp_path / "ca")
    make_secrets(server_dir, ("localhost", "127.0.0.1"), datetime.now(timezone.utc))
    certificates = server_dir.certificates
    folder, model = tmp_path / "www", tmp_path / "model.tflite"
    folder.mkdir()
    source = folder / "model.tflite"
    source.write_bytes(b"a" * 100_000)
    os.utime(source, (1_000, 1_000))
    with (
        folder_on_https(
            folder, certificates / "server.crt", server_dir.secrets / "server.key"
        ) as p,
        Relay(p) as relay,
        Services(tmp_path / "logs") as services,
    ):
        what = (f"https://127.0.0.1:{relay.port}/model.tflite", certificates / "ca.crt", model)
        command = [sys.executable, "-m", "benchmarks.deploy_plain", *what, 0.02]
        services.start("script", command, {"PYTHONPATH": str(ROOT)})
        services.wait("the first file", model.exists)
        turns, first = relay.turns, model.stat()
        services.wait("ten more questions", lambda: relay.turns >= turns + 20)
        assert model.stat().st_ino == first.st_ino
        source.write_bytes(b"b" * 100_000)
        os.utime(source, (2_000, 2_000))
        services.wait("the new file", lambda: model.read_bytes() == b"b" * 100_000)


def test_a_lost_frame_or_a_slow_switch_is_a_missed_limit():
    quick = {"active_s": 3.0, "answer_s": 4.0, "calm_frames": 0, "pause_s": 0.04, "bytes": 25_000}
    plain = deploy.Swap(**{**quick, "active_s": -1.0, "answer_s": 2.0, "gap_frames": 4})
    polled = {
        "follows": deploy.Polled(bytes=1000.0, milliseconds=2.0, growth_mb=0.1),
        "trains": deploy.Polled(bytes=3000.0, milliseconds=5.0, growth_mb=0.4),
        "plain": deploy.Polled(bytes=4000.0, milliseconds=6.0, growth_mb=0.0),
    }
    good = [deploy.Swap(**quick, gap_frames=0)] * 3
    answer = deploy.result({"ours": good, "plain": [plain]}, polled)
    assert {c.key: c.ratio for c in answer.comparisons} == {
        "publish_to_answer": 0.5, "swap_pause": 1.0, "publish_bytes": 1.0, "poll_bytes": 4.0,
        "poll_time": 3.0,
    }  # fmt: skip
    assert [line.rpartition(" ")[2] for line in lines(answer)[-3:]] == ["ok"] * 3
    bad = deploy.Swap(**{**quick, "active_s": 9.0}, gap_frames=1)
    answer = deploy.result({"ours": [bad, bad, good[0]], "plain": [plain]}, polled)
    told = [line.rpartition(" ")[2] for line in lines(answer)[-3:]]
    assert told == ["MISSED", "MISSED", "ok"]
    assert answer.figures["publish_to_active_worst_s"] == 9.0
