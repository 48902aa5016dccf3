"""The comparison that every other test stands on: blind to ids and times, and to nothing else."""

import pytest
from compare import assert_same

ANSWER = {"id": "a-1", "created": 1, "choices": [{"text": "é", "tool_calls": [{"id": "call_1", "name": "weather"}]}], "eval_count": 3}


def test_ids_and_times_may_differ():
    other = {"id": "b-2", "created": 2, "choices": [{"text": "é", "tool_calls": [{"id": "call_2", "name": "weather"}]}], "eval_count": 3}
    assert_same(ANSWER, other)


@pytest.mark.parametrize(
    "change",
    [
        {"eval_count": 4},
        {"choices": []},
        {"choices": [{"text": "e\u0301", "tool_calls": [{"id": "call_1", "name": "weather"}]}]},
        {"id": 7},
        {"id": None},
        {"usage": None},
    ],
    ids=["count", "list", "accent", "type of an id", "absent id", "more"],
)
def test_everything_else_may_not(change):
    with pytest.raises(AssertionError):
        assert_same(ANSWER, {**ANSWER, **change})


def test_a_missing_id_is_a_difference():
    with pytest.raises(AssertionError):
        assert_same(ANSWER, {name: value for name, value in ANSWER.items() if name != "id"})
