from dataclasses import replace

import pytest

from tempo_sim.profiles import CPU_SMOLLM2_135M, LLAMA_8B_A100, LLAMA_8B_H100, PROFILES

BOTH = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def test_a_step_that_only_decodes_costs_what_the_decode_line_says():
    assert LLAMA_8B_H100.step_s(32, 40_000, 0, 0) * 1e3 == pytest.approx(6.394 + 0.01041 * 32 + 4.270e-5 * 40_000)
    assert LLAMA_8B_A100.step_s(32, 40_000, 0, 0) * 1e3 == pytest.approx(11.582 + 0.03171 * 32 + 8.149e-5 * 40_000)
    assert CPU_SMOLLM2_135M.step_s(4, 1_000, 0, 0) * 1e3 == pytest.approx(68 + 3.1 * 4)


def test_a_step_that_only_prefills_costs_what_the_prefill_line_says():
    assert LLAMA_8B_H100.step_s(0, 0, 1_000, 1_000**2) * 1e3 == pytest.approx(3.13 + 20.05 + 0.4418)
    assert LLAMA_8B_A100.step_s(0, 0, 1_000, 1_000**2) * 1e3 == pytest.approx(7.16 + 55.88 + 1.491)
    assert CPU_SMOLLM2_135M.step_s(0, 0, 100, 100**2) * 1e3 == pytest.approx(68 + 95)


def test_a_mixed_step_reads_the_weights_once_and_adds_the_rest():
    mixed_ms = LLAMA_8B_H100.step_s(10, 5_000, 200, 200**2) * 1e3
    assert mixed_ms == pytest.approx(6.394 + 0.1041 + 0.2135 + 4.01 + 0.017672)


@BOTH
def test_a_step_costs_more_with_everything_that_it_does(profile):
    less = profile.step_s(8, 4_000, 128, 128**2)
    assert profile.step_s(9, 4_000, 128, 128**2) > less
    assert profile.step_s(8, 4_000, 129, 129**2) > less
    assert profile.step_s(8, 9_000, 128, 128**2) >= less


@BOTH
def test_no_step_is_shorter_than_the_shortest(profile):
    assert profile.step_s(1, 0, 0, 0) >= profile.shortest_step_s
    assert profile.step_s(0, 0, 1, 1) >= profile.shortest_step_s


@BOTH
def test_a_profile_holds_a_batch_of_ordinary_requests(profile):
    assert profile.kv_tokens >= profile.max_places * 500
    assert profile.max_step_tokens >= profile.max_places
    assert profile.tokens_per_s > 0.0


@pytest.mark.parametrize("profile", [LLAMA_8B_H100, LLAMA_8B_A100], ids=lambda profile: profile.name)
def test_an_80_gb_card_holds_450_thousand_tokens_of_llama_8b(profile):
    assert profile.kv_tokens == 450_560


def test_a_gigabyte_holds_46_thousand_tokens_of_smollm2():
    assert CPU_SMOLLM2_135M.kv_tokens == 364 * 128


def test_a_profile_can_be_varied():
    assert replace(LLAMA_8B_H100, max_places=32).max_places == 32
