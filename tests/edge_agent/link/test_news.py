"""How an agent waits: until the server has news, until it is woken, until there is other work."""

import json
import threading
import time
from types import SimpleNamespace

import pytest

from edge_agent.link import news as module
from edge_agent.link.news import LOOK_S, News, WholeMessages
from fleet_model.errors import ConnectionFailed
from fleet_model.protocol.whole import MAX_WHOLE_REPLY_BYTES, MOST_WHOLE_BYTES, join

pytestmark = pytest.mark.base


class Server:
    """Answers when it is told to."""

    def __init__(self, hold_s=25.0, whole_reply_bytes=0):
        self.standing = SimpleNamespace(hold_s=hold_s, whole_reply_bytes=whole_reply_bytes)
        self.address = self.models_from = "server:1"
        self.asked, self.answers, self.turn = [], [], threading.Semaphore(0)

    def look_query(self, report):
        return f"report={report}"

    def ask(self, method, path, content=b"", wait_s=0.0, most_bytes=None):
        self.asked.append((method, path, content, wait_s))
        assert self.turn.acquire(timeout=60.0), "it was asked for more than it was to answer"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, answer):
        self.answers.append(json.dumps(answer).encode() if isinstance(answer, dict) else answer)
        self.turn.release()


def said(message=False, tag="t1", alive=False):
    return {"message": message, "tag": tag, "alive": alive}


def rest(news, report="r"):
    news.rest(lambda: report, 0.01, lambda: False)


def test_a_rest_ends_with_the_answer_and_the_next_request_carries_its_tag():
    server = Server()
    news = News(server)
    server.tell(said(message=True))
    rest(news)
    assert news.take()  # of a tag that it did not know
    assert news.question

    news.fetched()
    assert not news.question
    server.tell(said(message=False))
    rest(news)

    assert not news.take()
    method, path, _, wait_s = server.asked[1]
    assert method == "GET"
    assert path.endswith("/news?tag=t1&report=r")
    assert wait_s > server.standing.hold_s


def test_other_work_ends_a_rest_and_the_request_goes_on():
    server = Server()
    news = News(server)
    turns, reports = iter([False, False, True]), iter(["told"])
    news.rest(lambda: next(reports), 0.01, lambda: next(turns))
    assert not news.take()
    news.rest(lambda: next(reports), 0.01, lambda: True)  # no second report: none would be sent

    server.tell(said(message=True))
    rest(news)

    assert news.take()
    assert news.question
    news.close()
    news._thread.join(30)
    assert len(server.asked) == 1  # the same one


def test_wake_ends_a_rest_from_another_thread():
    news = News(Server())
    threading.Timer(0.1, news.wake).start()

    rest(news)

    assert not news.take()


def test_a_failure_is_raised_where_the_answer_is_taken_and_then_it_asks_anew():
    server = Server()
    news = News(server)
    server.tell(said())
    rest(news)
    assert news.take()
    assert not news.question
    server.tell(ConnectionFailed("no answer"))
    rest(news)
    with pytest.raises(ConnectionFailed, match="no answer"):
        news.take()
    assert news.question  # nothing is known any more
    server.tell(said())
    rest(news)
    assert news.take()


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"no json", None, b'{"message": true}'])
def test_news_that_are_none_are_a_failed_connection(answer):
    server = Server()
    news = News(server)
    server.tell(answer)
    rest(news)

    with pytest.raises(ConnectionFailed, match="news"):
        news.take()


def test_without_held_requests_a_question_may_always_wait_and_looks_are_frequent():
    news = News(Server(hold_s=0.0))

    news.fetched()

    assert news.question
    assert news.look_s(2.0) == 2.0
    apart = News(Server(), asks_here=False)  # a SuperLink asks, of which this server knows nothing
    apart.fetched()
    assert apart.question
    assert apart.look_s(2.0) == 2.0


def test_models_from_elsewhere_are_looked_for_often():
    server = Server()
    assert News(server).look_s(2.0) == LOOK_S
    server.models_from = "bucket"
    assert News(server).look_s(2.0) == 2.0


def test_heartbeats_are_spared_while_the_server_keeps_the_robot_alive(monkeypatch):
    server, clock = Server(), SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    news = News(server)
    assert not news.spares(960.0)  # 40 s ago and nothing is held
    assert news.spares(985.0)
    news.rest(str, 0.0, lambda: True)
    assert news.spares(975.0)  # held: the server sees to it
    assert not news.spares(959.0)  # but not for ever
    server.tell(said(alive=True))
    while news._answer is None:
        time.sleep(0.01)

    clock.now = 1009.0
    assert news.spares(0.0)
    clock.now = 1011.0
    assert not news.spares(0.0)


def test_whole_messages_go_only_to_a_server_that_moves_them_and_only_small_ones():
    old, server = Server(hold_s=0.0), Server()
    assert WholeMessages(old).receive() is None
    assert WholeMessages(old).reply([b"x"]) == 0
    assert WholeMessages(server).reply([bytes(MAX_WHOLE_REPLY_BYTES)]) == 0
    assert not old.asked + server.asked
    server.tell(join([b"head", b"part"]))
    assert WholeMessages(server).receive() == [b"head", b"part"]
    server.tell(b"{}")
    assert WholeMessages(server).reply([b"x"]) == 5
    server.tell(b"\0\0\0\5x")
    with pytest.raises(ConnectionFailed, match="not whole"):
        WholeMessages(server).receive()


def test_an_answer_at_once_that_tells_nothing_is_not_asked_for_again_at_once():
    server = Server()
    news = News(server)
    for _ in range(2):  # the second knows the tag
        server.tell(said(tag="t1"))
        rest(news)
        news.take()
    steps = []

    news.rest(str, 0.01, lambda: steps.append(len(server.asked)) or len(steps) == 1)
    assert steps == [2]  # it has waited, and there was other work

    turns = iter([False, True])
    news.rest(str, 0.01, lambda: next(turns))
    end = time.monotonic() + 60.0  # another thread asks
    while len(server.asked) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(server.asked) == 3


def test_a_long_reply_goes_whole_to_a_server_that_takes_it_and_a_question_is_asked_for_so():
    server = Server(whole_reply_bytes=10**9)  # no server makes an agent hold more than this
    whole = WholeMessages(server)
    server.tell(b"{}")
    assert whole.reply([bytes(MOST_WHOLE_BYTES - 4)]) == MOST_WHOLE_BYTES
    assert whole.reply([bytes(MOST_WHOLE_BYTES)]) == 0
    server.tell(join([b"head"]))
    whole.receive()
    assert server.asked[-1][1].endswith(f"/message?most={MOST_WHOLE_BYTES}")
