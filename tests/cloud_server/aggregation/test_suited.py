"""Every line of the table that says which rules go with which settings."""

import pytest

from cloud_server.aggregation.suited import suited_rule
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError

RELAYS = ("hall-2", "hall-3")
ENROLL = r"or let its robots enroll here and run `cloud-server robots relay DIR hall-2 1`$"
SITES = {"sites": {"enabled": True}}
BUFFERED = {"rounds": {"mode": "buffered"}}


def built(rule="fedavg", relays=(), personal=(), **sections):
    aggregation = {"rule": rule, "personal": personal}
    settings = ServerSettings.model_validate({"aggregation": aggregation, **sections})
    return suited_rule(settings, relays)


def private(mode):
    return {"privacy": {"mode": mode}}


@pytest.mark.parametrize("rule", ["scaffold", "fedex_lora", "lora_fair", "flora_stacking"])
def test_a_rule_that_needs_every_tensor_is_refused_where_some_stay_on_the_robots(rule):
    with pytest.raises(SettingsError, match=rf"{rule} needs every trained .*\.personal = \[\]$"):
        built(rule, personal=("head/bias",))
    assert built(rule)
    assert built("fedavg", personal=("head/bias",))


def test_a_rule_that_sends_more_than_weights_is_refused_with_sites():
    with pytest.raises(SettingsError, match="rule scaffold works without sites only"):
        built("scaffold", **SITES)
    assert built("median", **SITES)


def test_clusters_inside_sites_are_refused_without_sites():
    with pytest.raises(SettingsError, match=r"sites.num_clusters parts .*num_clusters = 1$"):
        built(sites={"num_clusters": 2})
    assert built(sites={"num_clusters": 2, "enabled": True})


@pytest.mark.parametrize("rule", ["fedex_lora", "flora_stacking"])
def test_a_rule_that_keeps_a_residual_is_refused_with_sites(rule):
    with pytest.raises(SettingsError, match=rf"{rule} keeps what it adds .* such as lora_fair$"):
        built(rule, **SITES)
    assert built("lora_fair", **SITES)


@pytest.mark.parametrize("rule", ["scaffold", "fednova"])
def test_a_rule_that_takes_updates_for_sums_of_gradients_is_refused_with_adam(rule):
    with pytest.raises(SettingsError, match=rf"{rule} takes an update .* training.adaptive = 0"):
        built(rule, training={"adaptive": 0.999})
    assert built("fedavg", training={"adaptive": 0.999})
    assert built(rule)


def test_a_rule_that_uses_fresh_updates_only_is_refused_with_buffered_rounds():
    with pytest.raises(SettingsError, match=r'flora_stacking uses no update .* mode "sync"'):
        built("flora_stacking", **BUFFERED)
    assert built("fedex_lora", **BUFFERED)


@pytest.mark.parametrize("mode", ["central", "local"])
def test_what_would_travel_without_noise_is_refused(mode):
    with pytest.raises(SettingsError, match="scaffold lets tensors travel that get no noise"):
        built("scaffold", **private(mode))
    with pytest.raises(SettingsError, match=f'"{mode}" works without sites only'):
        built(**private(mode), **SITES)


@pytest.mark.parametrize("rule", ["fednova", "fedexp", "median", "krum", "norm_bounded"])
def test_rules_that_look_at_single_updates_are_refused_in_mode_central(rule):
    with pytest.raises(SettingsError, match=f"rule {rule} looks at single updates, and the noise"):
        built(rule, **private("central"))
    assert built(rule, **private("local"))


@pytest.mark.parametrize("mode", ["central", "local"])
def test_relays_are_refused_where_single_robots_are_accounted_for(mode):
    words = rf"accounts for single robots, and hall-2, hall-3 sends the mean .* {ENROLL}"
    with pytest.raises(SettingsError, match=words):
        built(relays=RELAYS, **private(mode))
    assert built(**private(mode))


@pytest.mark.parametrize("rule", ["median", "krum", "fednova", "scaffold"])
def test_relays_are_refused_under_rules_that_must_see_single_robots(rule):
    with pytest.raises(SettingsError, match=rf"{rule} must see each robot's update, .* {ENROLL}"):
        built(rule, relays=RELAYS)
    assert built(rule)


@pytest.mark.parametrize("method", ["ridge", "lda", "ncm"])
def test_relays_are_refused_where_sums_that_do_not_add_up_would_be_asked_for(method):
    low_rank = {"start": {"closed_form": method, "directions": 16}}
    words = rf"directions = 16 asks .* do not add up, and hall-2, hall-3 sends .* {ENROLL}"
    with pytest.raises(SettingsError, match=words):
        built(relays=RELAYS, **low_rank)
    assert built(**low_rank)
    assert built(relays=RELAYS, start={"closed_form": method, "directions": 0})
    assert built(relays=RELAYS, start={"closed_form": "off", "directions": 16})


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_relays_may_answer_where_means_do(rule):
    assert built(rule, relays=RELAYS)
