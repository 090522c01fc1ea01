import pytest

from cloud_server.aggregation.aggregator import AGGREGATORS, build_aggregator
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


class Plain:
    """A user's rule without options."""

    def fold(self, checkpoint, contributions):
        return checkpoint


class Chosen(Plain):
    def __init__(self, beta: float, *, keep: int = 3, names: list[str] | None = None, loose=None):
        if beta > 1:
            raise SettingsError(f"beta is {beta:g}, expected at most 1")
        if keep == 13:
            raise ValueError("13 is refused")
        self.got = (beta, keep, names, loose)


class Open(Plain):
    def __init__(self, **options):
        self.got = options


class Unresolved(Plain):
    def __init__(self, what: "NotImported"):  # noqa: F821
        self.got = what


class OfEarlierReleases:
    def begin(self, checkpoint): ...
    def add(self, update): ...
    def finish(self): ...


def mine(monkeypatch, rule):
    """Return the name of a class of this file, as a user's module would have it."""
    import sys

    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    return f"mine:{rule.__name__}"


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_rule_of_the_table_can_be_made_and_has_the_interface(name):
    assert callable(build_aggregator(name, {}).fold)


def test_a_rule_of_the_users_own_gets_its_options_with_the_types_that_it_declares(monkeypatch):
    options = {"beta": "0.5", "keep": "7", "names": ["a"], "loose": "as it is"}

    built = build_aggregator(mine(monkeypatch, Chosen), options)

    assert built.got == (0.5, 7, ["a"], "as it is")
    assert build_aggregator(mine(monkeypatch, Plain), {})
    assert build_aggregator(mine(monkeypatch, Open), {"any": 1}).got == {"any": 1}
    assert build_aggregator(mine(monkeypatch, Unresolved), {"what": 1}).got == 1


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (Plain, {"beta": 1}, "options: rule mine:Plain has no option beta, it has no options"),
        (
            Chosen, {"beta": 1, "betta": 2},
            "aggregation.options: rule mine:Chosen has no option betta, expected beta (float), "
            "keep (int, default 3), names (list[str] | None, default None), loose (default None)",
        ),
        (Chosen, {"keep": 1}, "rule mine:Chosen needs the option beta; its options are beta "),
        (Chosen, {"beta": "much"}, "beta of rule mine:Chosen is 'much', expected float ("),
        (Chosen, {"beta": 0, "keep": 1.5}, "keep of rule mine:Chosen is 1.5, expected int ("),
        (Chosen, {"beta": 2}, "aggregation.options of rule mine:Chosen: beta is 2, expected at"),
        (Chosen, {"beta": 1, "keep": 13}, "of rule mine:Chosen: 13 is refused (got {'beta': 1"),
        (dict, {}, "aggregation.rule mine:dict"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_error_with_rule_option_and_what_is_expected(
    monkeypatch, rule, options, message
):
    monkeypatch.setitem(globals(), "dict", dict)
    with pytest.raises(SettingsError) as caught:
        build_aggregator(mine(monkeypatch, rule), options)

    assert message in str(caught.value)


def test_an_unknown_rule_is_named_with_its_setting_and_the_choices():
    with pytest.raises(SettingsError) as caught:
        build_aggregator("fedavgg", {})

    assert str(caught.value) == (
        "aggregation.rule: unknown plug-in 'fedavgg'; choose fedadagrad, fedadam, fedavg, "
        "fedavgm, fedex_lora, fedexp, fednova, fedyogi, flora_residual, flora_stacking, krum, "
        "lora_fair, median, multi_krum, norm_bounded, scaffold, trimmed_mean or 'module:attribute'"
    )


def test_a_rule_of_earlier_releases_is_told_what_replaced_its_methods(monkeypatch):
    with pytest.raises(SettingsError) as caught:
        build_aggregator(mine(monkeypatch, OfEarlierReleases), {})

    assert str(caught.value) == (
        "aggregation.rule mine:OfEarlierReleases has the methods begin, add and finish, which this "
        "release no longer calls; replace them by one method fold(checkpoint, contributions): "
        "docs/decisions/0011-aggregation-seam.md shows how"
    )
