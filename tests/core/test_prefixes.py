"""Which replicas have a prompt's beginning."""

from hypothesis import given
from hypothesis import strategies as st

from tempo_core.prefixes import BLOCK_BYTES, PrefixTable, chain

SYSTEM = b"You are a helpful assistant. " * 40  # a little more than two blocks


def test_prompts_share_keys_as_far_as_they_share_text_and_no_further():
    first, second = chain(SYSTEM + b"A" * 2000), chain(SYSTEM + b"B" * 2000)
    assert len(SYSTEM) // BLOCK_BYTES == 2
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])


def test_the_same_block_at_another_place_is_another_prefix():
    assert len(set(chain(b"x" * BLOCK_BYTES * 5))) == 5


def test_keys_are_the_same_in_every_process():
    assert chain(b"a" * BLOCK_BYTES) == [4182863953]


@given(st.binary(max_size=3000))
def test_any_prompt_has_a_key_for_each_full_block_and_a_long_one_no_more_than_64(prompt):
    assert len(chain(prompt)) == len(prompt) // BLOCK_BYTES
    assert len(chain(b"long " * 20_000 + prompt)) == 64


def test_a_replica_matches_as_deep_as_it_has_served():
    table = PrefixTable()
    table.note([1, 2, 3], "a")
    table.note([1, 2, 30, 40], "b")
    assert table.matched([1, 2, 3, 4]) == {"a": 3, "b": 2}
    assert table.matched([9, 1, 2]) == {}
    assert table.matched([]) == {}


def test_a_replica_that_lost_its_cache_matches_nothing_until_it_serves_again():
    table = PrefixTable()
    table.note([1, 2], "a")
    table.note([1, 2], "b")
    table.forget("a")
    table.forget("never seen")
    assert table.matched([1, 2]) == {"b": 2}
    table.note([1], "a")
    assert table.matched([1, 2]) == {"a": 1, "b": 2}


def test_what_was_used_the_longest_time_ago_is_forgotten_first_and_of_a_prompt_its_end():
    table = PrefixTable(capacity=4)
    table.note([1, 2, 3], "a")
    table.note([10, 20], "b")
    assert len(table) == 4
    assert table.matched([1, 2, 3]) == {"a": 2}
    assert table.matched([10, 20]) == {"b": 2}


def test_of_a_block_that_everybody_has_the_latest_eight_are_remembered():
    table = PrefixTable()
    for index in range(100):
        table.note([1], f"r{index}")
    assert set(table.matched([1])) == {f"r{index}" for index in range(92, 100)}


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=6), st.sampled_from("abc"), st.booleans())))
def test_nobody_matches_deeper_than_the_prompt_and_the_table_stays_bounded(steps):
    table = PrefixTable(capacity=5)
    for keys, replica, forget in steps:
        table.note(keys, replica)
        if forget:
            table.forget(replica)
            assert replica not in table.matched(keys)
        assert len(table) <= 5
        assert all(0 < depth <= len(keys) for depth in table.matched(keys).values())
