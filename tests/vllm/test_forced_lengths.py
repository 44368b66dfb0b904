"""The sampler's part of forced lengths, on tensors; `test_engine` has it in a whole engine."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

EOS, OTHER, PLAIN = 2, 5, 3
VOCABULARY = 8


@pytest.fixture(scope="module")
def forced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tempo_vllm.forced_lengths", reason="vLLM is not installed", exc_type=ImportError)


def params(tokens, *, cap=100, stops=(EOS, OTHER), ignore_eos=False):
    extra = None if tokens is None else {"forced_output_tokens": tokens}
    return SimpleNamespace(extra_args=extra, max_tokens=cap, ignore_eos=ignore_eos, all_stop_token_ids=set(stops))


def added(row, tokens, output, **facts):
    return (row, params(tokens, **facts), [], output)


def update(*, added=(), removed=(), moved=()):
    return SimpleNamespace(batch_size=4, added=added, removed=removed, moved=moved)


def allowed(logits):
    """The tokens that each row may still be."""
    return [torch.nonzero(row > float("-inf")).flatten().tolist() for row in logits]


def logits(rows):
    return torch.zeros(rows, VOCABULARY)


EVERY = list(range(VOCABULARY))
NO_STOP = [token for token in EVERY if token not in {EOS, OTHER}]


@pytest.fixture
def processor(forced):
    return forced.ForcedLengths(None, torch.device("cpu"), is_pin_memory=False)


def test_both_of_vllms_model_runners_take_the_same_class(forced):
    interface = pytest.importorskip(
        "vllm.v1.worker.gpu.sample.logits_processor", reason="a vLLM whose model runner V2 takes no logits processors"
    )
    assert issubclass(forced.ForcedLengths, interface.LogitsProcessor)
    assert issubclass(forced.ForcedLengths, forced.LogitsProcessor)


def test_stop_tokens_are_forbidden_until_the_last_token_which_is_one(processor):
    output = []
    processor.update_state(update(added=[added(0, 3, output)]))
    seen = []
    for _ in range(4):
        seen += allowed(processor.apply(logits(1)))
        output.append(PLAIN)
    assert seen == [NO_STOP, NO_STOP, [EOS], [EOS]]


def test_a_request_that_asks_for_nothing_is_left_alone(processor):
    processor.update_state(update(added=[added(0, None, []), added(1, 1, [])]))
    assert allowed(processor.apply(logits(2))) == [EVERY, [EOS]]


def test_a_request_is_followed_to_its_row_and_its_old_row_is_free(processor):
    processor.update_state(update(added=[added(0, 1, []), added(2, 9, [])]))
    processor.update_state(update(removed=[0], moved=[(2, 0, None)]))
    assert allowed(processor.apply(logits(3))) == [NO_STOP, EVERY, EVERY]


def test_a_model_without_a_stop_token_runs_on_to_its_cap(processor):
    processor.update_state(update(added=[added(0, 1, [], stops=())]))
    assert allowed(processor.apply(logits(1))) == [EVERY]


@pytest.mark.parametrize("tokens", [0, -1, 101, 2.5, "7", True])
def test_a_length_that_cannot_be_is_refused(processor, tokens):
    with pytest.raises(ValueError, match="must be a whole number from 1 to max_tokens"):
        processor.validate_params(params(tokens))


def test_without_an_end_token_nothing_can_be_forced(processor):
    with pytest.raises(ValueError, match="don't set ignore_eos"):
        processor.validate_params(params(5, ignore_eos=True))


@pytest.fixture
def slots(forced):
    """A processor for model runner V2 and the prompt lengths of its slots."""
    prompts = np.zeros(4, dtype=np.int32)
    state = SimpleNamespace(device=torch.device("cpu"), max_num_reqs=4, prompt_len=SimpleNamespace(np=prompts))
    processor = forced.ForcedLengths(None, state)
    assert isinstance(processor, forced.ForcedLengthsV2)
    return processor, prompts


def context(*places):
    """Places of the batch: (slot, tokens so far)."""
    slot, lengths = (np.array(column) for column in zip(*places, strict=True))
    return SimpleNamespace(idx_mapping_np=slot, seq_lens_upper_bound_np=lengths)


def test_in_slots_too_the_last_token_is_the_end_token(slots):
    processor, prompts = slots
    prompts[3] = 10
    assert processor.add_request(3, params(2))
    assert allowed(processor.apply(logits(1), context((3, 10)))) == [NO_STOP]
    assert allowed(processor.apply(logits(1), context((3, 11)))) == [[EOS]]


def test_places_of_the_batch_are_mapped_to_slots_and_slots_are_used_again(slots):
    processor, prompts = slots
    prompts[:] = 10
    processor.add_request(0, params(1))
    processor.add_request(2, params(9))
    batch = context((2, 10), (1, 10), (0, 10))
    assert allowed(processor.apply(logits(3), batch)) == [NO_STOP, EVERY, [EOS]]
    assert not processor.add_request(0, params(None))
    assert allowed(processor.apply(logits(3), batch)) == [NO_STOP, EVERY, EVERY]
