"""Conversational edit distance against brute force, a matrix worked by hand, and what a distance must be."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.data.dialogue import Dialogue, Turn
from personalign.models.encoder import Encoder
from personalign.personas import edit_distance
from personalign.personas.edit_distance import (
    EncodedSession,
    edit_distances,
    edit_distances_of,
    encode_sessions,
)


def session(rng: np.random.Generator, length: int, *, width: int = 3) -> EncodedSession:
    vectors = rng.normal(size=(length, width))
    return EncodedSession(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        rng.integers(0, 2, size=length),
    )


def every_alignment(one: EncodedSession, other: EncodedSession, *, scale: float) -> float:
    """The cheapest of all alignments, each written down: which messages are put in the place of which, in order."""
    cheapest = math.inf
    for size in range(min(len(one), len(other)) + 1):
        for left in itertools.combinations(range(len(one)), size):
            for right in itertools.combinations(range(len(other)), size):
                cost = float(len(one) + len(other) - 2 * size)
                for a, b in zip(left, right, strict=True):
                    if one.speakers[a] != other.speakers[b]:
                        cost = math.inf
                        break
                    cosine = sum(x * y for x, y in zip(one.vectors[a], other.vectors[b], strict=True))
                    cost += scale * (1 - cosine)
                cheapest = min(cheapest, cost)
    return cheapest


def test_it_is_the_cheapest_of_all_alignments() -> None:
    rng = np.random.default_rng(1)
    for number in range(1000):
        # At most six messages a side: 924 alignments.
        one, other = (session(rng, int(rng.integers(0, 7))) for _ in range(2))
        scale = (5.0, 1.0, 0.3)[number % 3]
        table = edit_distances([one, other], scale=scale)
        assert table[0, 1] == pytest.approx(every_alignment(one, other, scale=scale), abs=1e-9)
        assert table[0, 1] == table[1, 0]
        assert table[0, 0] == table[1, 1] == 0


def test_a_matrix_worked_by_hand() -> None:
    """A: hello (user), i bake bread (assistant). B: hello (user), rain (user), i bake cake (assistant).

    cos(bread, cake) = .8, cos(hello, rain) = 0, lambda 5:

            -   hello  rain  cake
        -   0   1      2     3
        hello 1 0      1     2
        bread 2 1      2     2        (hello, rain) + 5 * .2 = 1 + 1
    """
    hello, rain, bread, cake = (1.0, 0, 0), (0, 1.0, 0), (0, 0.6, 0.8), (0, 0, 1.0)
    one = EncodedSession(np.array([hello, bread]), np.array([0, 1]))
    other = EncodedSession(np.array([hello, rain, cake]), np.array([0, 0, 1]))
    assert edit_distances([one, other])[0, 1] == pytest.approx(2.0)
    # At a smaller lambda the change becomes cheaper, at a larger one deleting and inserting do.
    assert edit_distances([one, other], scale=1.0)[0, 1] == pytest.approx(1.2)
    assert edit_distances([one, other], scale=100.0)[0, 1] == pytest.approx(3.0)
    # The same words of the other speaker cannot take their place.
    swapped = EncodedSession(one.vectors, 1 - one.speakers)
    assert edit_distances([one, swapped])[0, 1] == 4.0


def test_messages_of_different_speakers_never_take_each_others_place() -> None:
    same = np.array([(1.0, 0.0)] * 3)
    one = EncodedSession(same, np.array([0, 0, 0]))
    other = EncodedSession(same[:2], np.array([1, 1]))
    assert edit_distances([one, other])[0, 1] == 5.0


@given(st.integers(0, 2**32 - 1), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_it_is_bounded_and_grows_with_the_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    sessions = [session(rng, int(rng.integers(0, 9))) for _ in range(4)]
    table = edit_distances(sessions, scale=scale)
    larger = edit_distances(sessions, scale=scale + 1)
    for a, b in itertools.combinations(range(4), 2):
        lengths = len(sessions[a]), len(sessions[b])
        assert abs(lengths[0] - lengths[1]) - 1e-9 <= table[a, b] <= sum(lengths) + 1e-9
        assert table[a, b] <= larger[a, b] + 1e-9
    assert edit_distances([*sessions, sessions[0]], scale=scale)[0, 4] == pytest.approx(0, abs=1e-9)


def test_filled_in_pieces_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for _ in range(9):
        sessions = [session(rng, int(rng.integers(0, 12))) for _ in range(int(rng.integers(0, 6)))]
        whole = edit_distances(sessions)
        for limit in ("_CELLS", "_MOST_CELLS"):
            with monkeypatch.context() as patched:
                patched.setattr(edit_distance, limit, 300)
                np.testing.assert_allclose(whole, edit_distances(sessions), atol=1e-12)
        assert whole.shape == (len(sessions), len(sessions))


def test_nobody_and_people_without_sessions() -> None:
    assert edit_distances_of([]) == []
    assert [table.shape for table in edit_distances_of([[], [session(np.random.default_rng(1), 2)]])] == [
        (0, 0),
        (1, 1),
    ]


def test_sessions_are_encoded_message_by_message(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def encode(self: Encoder, texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.eye(8)[[len(text) for text in texts]]

    monkeypatch.setattr(Encoder, "encode", encode)
    encoder = Encoder("made", None, None, 8, 8)
    talk = partial(Dialogue, persona=())
    first = talk("1", messages=(Turn("user", "a"), Turn("assistant", "bb")))
    second = talk("2", messages=(Turn("assistant", "bb"),))
    found = encode_sessions([first, talk("0", messages=()), second], encoder)
    assert asked == [["a", "bb", "bb"]]
    assert [len(item) for item in found] == [2, 0, 1]
    assert [item.speakers.tolist() for item in found] == [[0, 1], [], [1]]
    assert edit_distances(found).tolist() == [[0, 2, 1], [2, 0, 1], [1, 1, 0]]
