"""Format of keys and scopes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys.api_key import digest_of, generate_key, id_of
from service.scopes import SCOPES, parse_scopes


def test_generated_keys_have_the_format_and_differ() -> None:
    keys = [generate_key() for _ in range(100)]
    assert all(re.fullmatch(r"maskloop_[a-z0-9]{8}_[A-Za-z0-9]{43}", key.text) for key in keys)
    assert len({key.text for key in keys}) == len({key.digest for key in keys}) == 100
    for key in keys:
        assert id_of(key.text) == key.id
        assert digest_of(key.text) == key.digest
        assert key.text not in key.digest


@given(st.text())
def test_id_of_accepts_any_text(text: str) -> None:
    found = id_of(text)
    assert found is None or text.startswith(f"maskloop_{found}")


@given(st.lists(st.sampled_from(SCOPES), min_size=1), st.sampled_from([",", " , ", ",,"]))
def test_parsed_scopes_have_the_order_of_the_definition(named: list[str], comma: str) -> None:
    assert parse_scopes(comma.join(named).upper()) == tuple(scope for scope in SCOPES if scope in named)


def test_parse_scopes_examples() -> None:
    assert parse_scopes("all") == SCOPES
    assert parse_scopes("") == ()
    for text in ("all,predict", "predict,forecast"):
        with pytest.raises(ValueError, match="predict,contribute,train,admin"):
            parse_scopes(text)
