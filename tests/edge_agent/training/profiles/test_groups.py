"""Which groups of records may be told."""

import pytest

from edge_agent.training.profiles.groups import Note, choose, counted, is_enough


def notes(count, authors=5, start=0, source="board", of="", **fields):
    return [
        Note(name=f"{of or source}{n}:a{n % authors}", source=source, **fields)
        for n in range(start, start + count)
    ]


def names(of):
    return frozenset(note.name for note in of)


@pytest.mark.parametrize(
    ("group", "enough"),
    [
        (notes(20), True),
        (notes(19), False),
        (notes(20, authors=4), False),
        (notes(100, authors=1), False),
        ([*notes(20, authors=1), *notes(20, authors=10, start=20)], False),  # a0 has 22 of 40
        ([*notes(16, authors=1), *notes(20, authors=10, start=20)], True),  # a0 has 18 of 36
        ([], False),
    ],
)
def test_a_group_has_twenty_records_of_five_authors_of_whom_none_has_more_than_half(group, enough):
    assert is_enough(names(group)) is enough


def test_sources_are_told_each_for_itself_and_small_ones_not_at_all():
    board, field, other = notes(25), notes(19, source="field"), notes(20, 1, source="other")
    choice = choose([*board, *field, *other], {})
    assert choice.groups == {("board", ""): names(board)}
    assert (choice.too_few, choice.waiting) == (39, 0)


def test_records_without_an_author_are_of_one():
    unknown = [Note(name=f"{n}:", source="board") for n in range(100)]
    assert choose(unknown, {}).groups == {}


def topical(count, topic, start):
    return notes(count, start=start, topics=frozenset({topic}))


def test_a_topic_is_told_where_it_and_what_is_without_it_are_large_enough():
    arms, rest = topical(20, "arms", 0), notes(20, start=20)
    choice = choose([*arms, *rest], {})
    assert choice.groups == {("board", ""): names([*arms, *rest]), ("board", "arms"): names(arms)}
    assert set(choose([*arms, *rest[:19]], {}).groups) == {("board", "")}, "19 would show"
    assert set(choose(arms, {}).groups) == {("board", ""), ("board", "arms")}, "the same records"


def test_two_topics_that_nearly_agree_are_not_both_told():
    both = notes(30, topics=frozenset({"arms", "legs"}))
    one = topical(1, "arms", 30)
    choice = choose([*both, *one, *notes(40, start=40)], {})
    assert set(choice.groups) == {("board", ""), ("board", "arms")}


def test_new_records_wait_until_they_are_enough_for_themselves():
    first = notes(25)
    told = choose(first, {}).groups
    few = choose([*first, *notes(19, start=25)], told)
    assert (few.groups, few.waiting) == (told, 19)
    of_one = choose([*first, *notes(30, authors=1, start=25)], told)
    assert (of_one.groups, of_one.waiting) == (told, 30)
    many = [*first, *notes(20, start=25)]
    assert choose(many, told).groups == {("board", ""): names(many)}


def test_a_source_that_has_lost_a_few_records_waits():
    first = notes(60)
    told = choose(first, {}).groups
    assert choose(first[1:], told).groups == {}
    assert choose(first[1:], told).waiting == 59
    assert choose(first[20:], told).groups == {("board", ""): names(first[20:])}


def test_a_source_that_has_lost_all_of_one_author_waits():
    first = [*notes(40), *notes(20, start=40, authors=1)]
    told = choose(first, {}).groups
    assert set(told) == {("board", "")}
    assert choose(first[:40], told).groups == {}
    assert choose(first[20:40], told).groups == {}, "40 are gone, of whom a0 had 24"


def test_neither_what_came_nor_what_went_is_a_few():
    first = notes(60)
    told = choose(first, {}).groups
    assert choose([*first[1:], *notes(40, start=60)], told).groups == {}, "one is gone"
    assert choose([*first[20:], *notes(19, start=60)], told).groups == {}, "19 are new"
    now = [*first[20:], *notes(20, start=60)]
    assert choose(now, told).groups == {("board", ""): names(now)}


def test_a_hundred_topics_are_told():
    many = notes(20, topics=frozenset(f"t{n:03}" for n in range(101)))
    assert [topic for _, topic in choose(many, {}).groups] == [
        "",
        *(f"t{n:03}" for n in range(100)),
    ]


def test_a_topic_is_held_against_all_that_was_ever_told():
    arms, other = topical(29, "arms", 0), notes(1, start=29)
    first = choose([*arms, *other], {}).groups
    assert set(first) == {("board", "")}
    more = [*arms, *other, *notes(20, start=30)]
    second = choose(more, first)
    assert second.groups == {("board", ""): names(more)}, "all but one were told"
    third = choose(more, second.groups, first.values())
    assert third.groups == second.groups
    assert set(choose(more, {}).groups) == {("board", ""), ("board", "arms")}, "nothing was told"


def test_the_same_records_under_another_source_are_the_same():
    told = choose(notes(30), {}).groups
    assert choose(notes(31, source="forum", of="board"), told).groups == {}
    assert choose(notes(50, source="forum", of="board"), told).groups.keys() == {("forum", "")}
    both = [*notes(30), *notes(31, source="forum", of="board")]
    assert choose(both, {}).groups == {("board", ""): names(notes(30))}


def test_twenty_sources_are_told_first_those_that_were():
    many = [note for n in range(25) for note in notes(20, source=f"s{n:02}")]
    assert [source for source, _ in choose(many, {}).groups] == [f"s{n:02}" for n in range(20)]
    told = {("s24", ""): names(many[-20:])}
    assert [source for source, _ in choose(many, told).groups][:2] == ["s24", "s00"]
    assert len(choose(many, told).groups) == 20
    assert choose(many, {}).waiting == 100


def test_a_topic_that_has_gained_a_few_waits_while_its_source_goes_on():
    before = [*topical(20, "arms", 0), *notes(40, start=20)]
    told = choose(before, {}).groups
    now = [*before, *topical(1, "arms", 60), *notes(25, start=61)]
    choice = choose(now, told)
    assert choice.groups[("board", "")] == names(now)
    assert choice.groups[("board", "arms")] == names(before[:20])


def test_terms_and_labels_are_of_enough_records_and_authors():
    common = notes(20, terms=frozenset({"robot"}), label="pick")
    loud = notes(50, authors=1, start=20, terms=frozenset({"secret", "robot"}), label="mine")
    once = notes(1, start=70, terms=frozenset({"once"}))
    every = [*common, *loud, *once, *notes(100, start=71)]
    assert counted(every, "labels") == {"pick": 20}
    assert counted(every, "terms") == {}, "a0 has 54 of the 70 robots"
    assert counted([*common, *loud[:10]], "terms") == {"robot": 30}


def test_the_most_frequent_terms_come_first():
    words = [
        *notes(40, terms=frozenset({"arms", "legs"})),
        *notes(20, start=40, terms=frozenset({"legs"})),
    ]
    assert list(counted(words, "terms").items()) == [("legs", 60), ("arms", 40)]
    many = notes(20, terms=frozenset(f"word{n:03}" for n in range(150)))
    assert list(counted(many, "terms")) == [f"word{n:03}" for n in range(100)]
