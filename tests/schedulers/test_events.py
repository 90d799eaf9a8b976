from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.schedulers.events import Token

tokens = st.builds(Token, st.integers(0, 10**6), st.text(min_size=1, max_size=12), st.integers(0, 10**12))


@given(tokens)
def test_a_token_survives_its_text(token: Token) -> None:
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize("text", ["", "1", "1/env", "1//3", "x/env/3", "1/env/x", "1/env/-3", "-1/env/3", "1/env/"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'attempt/worker/sequence'"):
        Token.parse(text)


def test_tokens_sort_by_attempt_worker_sequence() -> None:
    ordered = [Token(1, "env-0", 5), Token(1, "env-0", 12), Token(1, "env-1", 0), Token(2, "env-0", 0)]
    assert sorted(reversed(ordered)) == ordered
