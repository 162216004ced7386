"""The state of a batch and the conditions that end its sequences, without a model."""

from __future__ import annotations

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers.generation import (
    CompoundStopCondition,
    EndOfSequenceCondition,
    GreedyGeneratorConfig,
    MaxGeneratedPiecesCondition,
    PredicateCondition,
    StopCondition,
)
from curated_transformers.generation.state import GeneratorState
from curated_transformers.layers import AttentionMask, KeyValueCache

PROMPTS = [[0, 0, 7], [5, 6, 7], [0, 4, 4], [1, 2, 3]]
MASK = np.array(PROMPTS) > 0
EOS = 9


def new_state(cache=None):
    return GeneratorState(
        attention_mask=AttentionMask(MASK), cache=cache, prompt_ids=np.array(PROMPTS)
    )


def config_condition(most, eos_id=EOS):
    return GreedyGeneratorConfig(None, eos_id, most).stop_condition()


def step(state, condition, *pieces, cache=None):
    numbers, emitted = state.step(cache, np.array(pieces)[:, None], condition)
    return list(zip(numbers.tolist(), emitted[:, 0].tolist(), strict=True))


def test_a_state_begins_with_the_prompts():
    state = new_state()
    assert state.positions.tolist() == [[-1, -1, 0], [0, 1, 2], [-1, 0, 1], [0, 1, 2]]
    assert state.seq_ids.tolist() == [0, 1, 2, 3]
    assert state.generated_ids.shape == (4, 0)
    assert state.last_step_ids.tolist() == PROMPTS
    assert not state.is_finished
    assert state.attention_mask == AttentionMask(MASK)


def test_sequences_that_end_are_dropped_from_everything():
    values = Tensor(np.arange(4 * 2 * 3 * 2, dtype=np.float32).reshape(4, 2, 3, 2))
    cache = [KeyValueCache(values, values)]
    state, condition = new_state(cache), config_condition(3)
    assert step(state, condition, 1, EOS, 3, 4, cache=cache) == [(0, 1), (2, 3), (3, 4)]
    assert state.seq_ids.tolist() == [0, 2, 3]
    assert state.prompt_ids.tolist() == [PROMPTS[0], PROMPTS[2], PROMPTS[3]]
    assert state.positions.tolist() == [[1], [2], [3]]
    assert state.generated_ids.tolist() == [[1], [3], [4]]
    assert state.last_step_ids.tolist() == [[1], [3], [4]]
    np.testing.assert_array_equal(state.cache[0].key.numpy(), values.numpy()[[0, 2, 3]])
    expected = np.concatenate([MASK[[0, 2, 3]], np.ones((3, 1), bool)], axis=1)
    assert state.attention_mask == AttentionMask(expected)
    assert step(state, condition, 5, EOS, 6) == [(0, 5), (3, 6)]
    assert step(state, condition, 7, 8) == [(0, 7), (3, 8)]  # the third pieces are emitted
    assert state.is_finished


def test_the_end_piece_at_the_maximum_ends_its_row_and_is_not_emitted():
    """Both marks at once: one must not undo the other."""
    state = new_state()
    assert step(state, config_condition(1), 1, EOS, 3, EOS) == [(0, 1), (2, 3)]
    assert state.is_finished


@pytest.mark.parametrize("most", [0, -1])
def test_a_maximum_below_one_is_none(most):
    state = new_state()
    for _ in range(20):
        assert len(step(state, config_condition(most), 1, 2, 3, 4)) == 4


def test_several_end_pieces_end():
    state = new_state()
    assert step(state, EndOfSequenceCondition([EOS, 8]), 8, 1, EOS, 2) == [(1, 1), (3, 2)]


def test_conditions_of_a_list_are_joined_by_or():
    calls = []

    class Recording(StopCondition):
        def __init__(self, piece, name):
            self.piece, self.name = piece, name

        def update_completed(self, *, state, completed_exclude, completed_include):
            assert completed_exclude.shape == completed_include.shape == (4, 1)
            assert completed_exclude.dtype == completed_include.dtype == bool
            calls.append(self.name)
            completed_include |= state.last_step_ids == self.piece

    condition = CompoundStopCondition([Recording(1, "a"), EndOfSequenceCondition(EOS)])
    condition.append(Recording(2, "b"))
    state = new_state()
    assert step(state, condition, 1, 2, EOS, 4) == [(0, 1), (1, 2), (3, 4)]
    assert calls == ["a", "b"]
    assert state.seq_ids.tolist() == [3]


def test_a_predicate_gets_the_generated_pieces():
    seen = []

    def predicate(pieces):
        seen.append(pieces)
        return pieces[-1] == 2

    state = new_state()
    assert len(step(state, PredicateCondition(predicate), 1, 2, 3, 4)) == 4  # emitted
    assert state.seq_ids.tolist() == [0, 2, 3]
    step(state, PredicateCondition(predicate), 5, 6, 7)
    assert seen == [[1], [2], [3], [4], [1, 5], [3, 6], [4, 7]]


def test_marks_may_be_tensors():
    state = new_state()
    state.append([[EOS], [1], [2], [3]])
    exclude, include = (Tensor(np.zeros((4, 1), dtype=bool)) for _ in range(2))
    marks = {"completed_exclude": exclude, "completed_include": include}
    EndOfSequenceCondition(EOS).update_completed(state=state, **marks)
    MaxGeneratedPiecesCondition(2).update_completed(state=state, **marks)
    assert exclude.tolist() == [[True], [False], [False], [False]]
    assert not include.numpy().any()
    MaxGeneratedPiecesCondition(1).update_completed(state=state, **marks)
    assert include.numpy().all()


def test_before_the_first_step_no_condition_is_met():
    """The prompts may hold an end piece."""
    state = GeneratorState(attention_mask=[[True]], cache=None, prompt_ids=[[EOS]])
    exclude, include = state.completed(config_condition(1))
    assert not exclude.any()
    assert not include.any()


def test_a_configuration_states_its_conditions_in_the_documented_order():
    kinds = [type(one) for one in config_condition(3)]
    assert kinds == [EndOfSequenceCondition, MaxGeneratedPiecesCondition]
    config = GreedyGeneratorConfig(None, EOS, 3, stop_when=lambda pieces: True)
    assert [type(one) for one in config.stop_condition()] == [*kinds, PredicateCondition]
    with pytest.raises(ValueError, match="End-of-sequence piece id is unset"):
        GreedyGeneratorConfig(max_generated_pieces=3).stop_condition()
    with pytest.raises(ValueError, match="Maximum number of generation steps is unset"):
        GreedyGeneratorConfig(eos_id=3).stop_condition()
