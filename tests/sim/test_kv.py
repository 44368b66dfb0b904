from hypothesis import given
from hypothesis import strategies as st

from tempo_sim.kv import Holding, KVCache

SIZE = 4


def cache(blocks=10):
    return KVCache(blocks, SIZE)


def admitted(cache, holding, tokens):
    cached = cache.cached_tokens(holding, tokens)
    return cached if cache.admit(holding, cached, tokens, tokens) else None


def test_a_request_takes_whole_blocks_and_gives_them_back():
    kv, holding = cache(), Holding("a", ())
    assert admitted(kv, holding, 9) == 0
    assert (kv.used, holding.capacity) == (3, 12)
    assert kv.grow(holding, 13)
    assert kv.used == 4
    kv.release(holding, 13)
    assert (kv.used, kv.available, holding.blocks) == (0, 10, 0)


def test_what_does_not_fit_changes_nothing():
    kv, one, two = cache(), Holding("a", (1, 2)), Holding("b", (1, 2))
    assert admitted(kv, one, 33) == 0
    assert admitted(kv, two, 33) is None
    assert not kv.grow(one, 41)
    assert (kv.used, one.blocks, two.blocks) == (9, 9, 0)


def test_nobody_is_let_in_whose_prompt_does_not_fit_as_a_whole():
    kv = cache()
    assert not kv.admit(Holding("a", ()), 0, 8, 41)
    assert kv.admit(Holding("a", ()), 0, 8, 40)
    assert kv.used == 2


def test_equal_prefixes_are_held_once():
    kv, one, two = cache(), Holding("a", (1, 2)), Holding("b", (1, 2))
    admitted(kv, one, 12)
    assert admitted(kv, two, 12) == 8
    assert kv.used == 4


def test_a_prefix_outlives_the_request_that_brought_it():
    kv, one = cache(), Holding("a", (1, 2))
    admitted(kv, one, 9)
    kv.release(one, 9)
    assert kv.used == 0
    assert kv.cached_tokens(Holding("b", (1, 2, 3)), 100) == 8


def test_a_prefix_is_found_only_up_to_the_first_difference():
    kv, one = cache(), Holding("a", (1, 2, 3))
    admitted(kv, one, 13)
    assert kv.cached_tokens(Holding("b", (1, 9, 3)), 100) == 4


def test_the_last_token_is_always_computed():
    kv, one = cache(), Holding("a", (1, 2))
    admitted(kv, one, 8)
    assert kv.cached_tokens(Holding("b", (1, 2)), 8) == 4


def test_a_block_can_be_shared_only_once_it_is_full():
    kv, one = cache(), Holding("a", (1, 2))
    admitted(kv, one, 6)
    assert kv.cached_tokens(Holding("b", (1, 2)), 100) == 4


def test_a_preempted_request_finds_its_own_blocks_again_but_nobody_else_does():
    kv, one = cache(), Holding("a", (1,))
    admitted(kv, one, 15)
    kv.release(one, 15)
    assert kv.cached_tokens(one, 16) == 12
    assert kv.cached_tokens(Holding("b", (1,)), 16) == 4


def test_memory_is_taken_from_the_longest_unused_and_from_the_end_of_each():
    kv, old, new = cache(8), Holding("old", ()), Holding("new", ())
    for holding in (old, new):
        admitted(kv, holding, 16)
    for holding in (old, new):
        kv.release(holding, 16)
    admitted(kv, Holding("third", ()), 9)
    assert kv.cached_tokens(old, 100) == 4
    assert kv.cached_tokens(new, 100) == 16


def test_two_who_computed_the_same_prefix_at_the_same_time_free_all_of_it():
    kv, one, two = cache(), Holding("a", (1, 2)), Holding("b", (1, 2))
    admitted(kv, one, 2)
    admitted(kv, two, 2)
    assert kv.grow(one, 9)
    assert kv.grow(two, 9)
    assert kv.used == 6
    kv.release(one, 9)
    kv.release(two, 9)
    assert (kv.used, kv.available) == (0, 10)


@given(st.data())
def test_books_always_balance(data):
    kv = cache(12)
    holdings = [Holding(f"r{index}", prefix) for index, prefix in enumerate([(), (1, 2), (1, 2, 3), (1, 4), (1, 2, 3)])]
    computed = dict.fromkeys(range(len(holdings)), 0)
    for _ in range(data.draw(st.integers(1, 40))):
        index = data.draw(st.integers(0, len(holdings) - 1))
        holding = holdings[index]
        if not holding.blocks:
            tokens = data.draw(st.integers(1, 30))
            cached = kv.cached_tokens(holding, tokens)
            assert cached < tokens
            if kv.admit(holding, cached, tokens, tokens):
                computed[index] = tokens
        elif data.draw(st.booleans()):
            computed[index] += kv.grow(holding, computed[index] + 1)
        else:
            kv.release(holding, computed[index])
        private = sum(h.blocks - len(h.shared) for h in holdings)
        assert kv.used == private + len({identity for h in holdings for identity in h.shared})
        assert 0 <= kv.used <= kv.blocks
        assert all(h.capacity >= computed[i] for i, h in enumerate(holdings) if h.blocks)
    for index, holding in enumerate(holdings):
        if holding.blocks:
            kv.release(holding, computed[index])
    assert kv.used == 0
