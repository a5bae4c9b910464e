"""A key as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys.api_key import digest_of, id_of, make_key
from service.scopes import SCOPES, parse_scopes


def test_keys_are_recognised_and_no_two_are_alike() -> None:
    keys = [make_key() for _ in range(100)]
    assert all(re.fullmatch(r"maskloop_[a-z0-9]{8}_[A-Za-z0-9]{43}", key.text) for key in keys)
    assert len({key.text for key in keys}) == len({key.digest for key in keys}) == 100
    for key in keys:
        assert id_of(key.text) == key.id
        assert digest_of(key.text) == key.digest
        assert key.text not in key.digest


@given(st.text())
def test_any_text_has_an_id_or_none(text: str) -> None:
    found = id_of(text)
    assert found is None or text.startswith(f"maskloop_{found}")


@given(st.lists(st.sampled_from(SCOPES), min_size=1), st.sampled_from([",", " , ", ",,"]))
def test_scopes_keep_their_order_whatever_is_written(named: list[str], comma: str) -> None:
    assert parse_scopes(comma.join(named).upper()) == tuple(scope for scope in SCOPES if scope in named)


def test_scopes_by_hand() -> None:
    assert parse_scopes("all") == SCOPES
    assert parse_scopes("") == ()
    for text in ("all,predict", "predict,forecast"):
        with pytest.raises(ValueError, match="predict,contribute,train,admin"):
            parse_scopes(text)
