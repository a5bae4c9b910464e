"""The number of threads of an inference, by load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.segmentation.inference.thread_counts import choose_threads, thread_counts_for


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (6, (1, 4, 6)), (16, (1, 4, 16)), (64, (1, 4, 16, 64))],
)
def test_thread_counts_grow_by_a_factor_of_four(cores: int, expected: tuple[int, ...]) -> None:
    assert thread_counts_for(cores) == expected


@pytest.mark.parametrize(
    ("load", "free", "expected"), [(1, 16, 16), (2, 16, 4), (4, 16, 4), (5, 16, 1), (40, 16, 1), (1, 3, 1), (2, 8, 4)]
)
def test_the_most_threads_that_are_free_and_an_equal_share(load: int, free: int, expected: int) -> None:
    assert choose_threads(thread_counts_for(16), cores=16, free=free, load=load) == expected


@given(cores=st.integers(1, 128), load=st.integers(0, 300), data=st.data())
def test_threads_never_exceed_the_free_cores_and_are_at_least_one(cores: int, load: int, data: st.DataObject) -> None:
    free = data.draw(st.integers(1, cores))
    found = choose_threads(thread_counts_for(cores), cores=cores, free=free, load=load)
    assert 1 <= found <= free
    assert found in thread_counts_for(cores)
