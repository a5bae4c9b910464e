"""How many threads an inference gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.segmentation.inference.thread_counts import thread_counts_for, width


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (6, (1, 4, 6)), (16, (1, 4, 16)), (64, (1, 4, 16, 64))],
)
def test_sessions_of_few_widths(cores: int, expected: tuple[int, ...]) -> None:
    assert thread_counts_for(cores) == expected


@pytest.mark.parametrize(
    ("load", "free", "expected"), [(1, 16, 16), (2, 16, 4), (4, 16, 4), (5, 16, 1), (40, 16, 1), (1, 3, 1), (2, 8, 4)]
)
def test_the_widest_that_is_fair_and_free(load: int, free: int, expected: int) -> None:
    assert width(thread_counts_for(16), cores=16, free=free, load=load) == expected


@given(cores=st.integers(1, 128), load=st.integers(0, 300), data=st.data())
def test_never_more_than_is_free_and_at_least_one(cores: int, load: int, data: st.DataObject) -> None:
    free = data.draw(st.integers(1, cores))
    found = width(thread_counts_for(cores), cores=cores, free=free, load=load)
    assert 1 <= found <= free
    assert found in thread_counts_for(cores)
