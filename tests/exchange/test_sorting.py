from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exchange.sorting import sort_by

KEYS = st.lists(st.sampled_from([-1.5, 0.0, 2.0, float("inf"), -float("inf")]) | st.floats(-1e9, 1e9))


@given(KEYS, st.randoms(), st.integers(0, 4))
def test_the_first_are_sorted_by_key_then_tag_and_the_rest_left_alone(
    keys: list[float], random: object, spare: int
) -> None:
    tags = list(range(len(keys)))
    random.shuffle(tags)  # type: ignore[attr-defined]
    count = max(len(keys) - spare, 0)
    expected = sorted(zip(keys[:count], tags[:count], strict=True)) + list(
        zip(keys[count:], tags[count:], strict=True)
    )
    key, tag = np.array(keys, np.float64), np.array(tags, np.int64)
    sort_by(key, tag, count)
    assert list(zip(key.tolist(), tag.tolist(), strict=True)) == expected
