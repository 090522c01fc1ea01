"""The bound on replies follows the model that robots are asked for."""

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree

from cloud_server.web.reply_bound import CHUNK_BYTES, bound_of, model_bound
from fleet_model.bundle import TRAINER


def test_the_bound_is_that_of_the_model_and_a_little_more():
    head = bound_of([25_600, 20], 10**9)
    large = bound_of([20 * CHUNK_BYTES] * 100, 10**9)

    assert (head.objects, head.content_bytes) == (72, 4 * 25_620 + (1 << 20))
    assert large.objects == 2 * 100 * 22 + 64
    assert large.content_bytes == 10**9  # the operator's own bound is the smaller one


def test_an_honest_reply_of_any_model_is_within_it():
    for tensors in (1, 40, 2000):
        arrays = [
            ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64)])
            for _ in range(tensors)
        ]
        records = [ObjectTree(object_id="c" * 64, children=arrays), *arrays[:3]]
        content = ObjectTree(object_id="d" * 64, children=records)
        message = ObjectTree(object_id="e" * 64, children=[content])
        bound_of([4] * tensors, 10**9).require(PushMessagesRequest(message_object_trees=[message]))


def test_it_follows_a_model_that_changes_and_outlives_one_that_is_damaged(server_dir):
    bound = model_bound(server_dir, 10**9)
    before = bound()

    file = server_dir.model / TRAINER
    content = file.read_bytes()
    file.write_bytes(b"{")
    assert bound() == before
    file.write_bytes(content)
    assert bound() == before
    file.write_bytes(b"{")
    assert model_bound(server_dir, 10**9)().objects > 64  # no model: that of max_update_mb


def test_exact_sums_have_room_only_where_they_are_asked_for(server_dir):
    plain = model_bound(server_dir, 10**9)()
    exact = model_bound(server_dir, 10**9, exact_sums=True)()
    assert plain == bound_of([4 * 8 * 3, 4 * 3], 10**9)
    assert exact == bound_of([4 * 8 * 3, 4 * 3], 10**9, 2 * 8 * 9)
    triangle = 2 * 1280 * 1281  # bytes of float32; high and low halves travel
    assert bound_of([25_600], 10**9, triangle).content_bytes > 2 * triangle
    assert bound_of([25_600], 10**9, triangle).objects >= 64 + 2 * (2 * triangle // CHUNK_BYTES)
