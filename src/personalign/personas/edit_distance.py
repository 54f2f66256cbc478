"""Conversational edit distance: how many messages of one session must be inserted, deleted or changed to get another."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from personalign.data.dialogue import Dialogue
from personalign.models.encoder import Encoder

# IDL, appendix A.2: a message takes another's place for less than a deletion and an insertion where cos > 0.6.
SCALE = 5.0
# Cells of the tables that are filled at once: few enough for a processor's cache.
_CELLS = 500_000
# Of one person, 400 MB: some 10,000 messages.
_MOST_CELLS = 100_000_000

Distances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EncodedSession:
    """A session's messages as unit vectors, float [messages, width], and who said each, an integer [messages]."""

    vectors: npt.NDArray[np.floating]
    speakers: npt.NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.vectors)


def encode_sessions(sessions: Sequence[Dialogue], encoder: Encoder) -> list[EncodedSession]:
    """Every distinct message is encoded once, however many sessions hold it."""
    vectors = encoder.encode([turn.content for session in sessions for turn in session.messages])
    ends = np.cumsum([len(session.messages) for session in sessions], dtype=int)
    return [
        EncodedSession(
            vectors[end - len(session.messages) : end],
            np.array([turn.role == "assistant" for turn in session.messages], dtype=np.int8),
        )
        for session, end in zip(sessions, ends, strict=True)
    ]


def edit_distances(sessions: Sequence[EncodedSession], *, scale: float = SCALE) -> Distances:
    """The distance of each session of a person to each other one: float64 [sessions, sessions], symmetric.

    Deleting and inserting a message cost 1, changing one into another of the same speaker `scale` times one minus their
    cosine; between speakers nothing is changed. (IDL, Eq. 7-10; Lavi et al. 2021.)
    """
    return edit_distances_of([sessions], scale=scale)[0]


def edit_distances_of(people: Sequence[Sequence[EncodedSession]], *, scale: float = SCALE) -> list[Distances]:
    """`edit_distances` of every person, many pairs of sessions at a time."""
    tables: list[Distances] = []
    group: list[Sequence[EncodedSession]] = []
    cells = 0
    for sessions in people:
        own = sum(map(len, sessions)) ** 2
        if own > _MOST_CELLS:
            tables += _distances(group, scale=scale) if group else []
            tables.append(_pair_by_pair(sessions, scale=scale))
            group, cells = [], 0
            continue
        if group and cells + own > _CELLS:
            tables += _distances(group, scale=scale)
            group, cells = [], 0
        group.append(sessions)
        cells += own
    return tables + (_distances(group, scale=scale) if group else [])


def _pair_by_pair(sessions: Sequence[EncodedSession], *, scale: float) -> Distances:
    """Of somebody whose messages, each with each, would not fit into memory."""
    table = np.zeros((len(sessions), len(sessions)))
    for a in range(len(sessions)):
        for b in range(a):
            table[a, b] = table[b, a] = _distances([[sessions[b], sessions[a]]], scale=scale)[0][0, 1]
    return table


def _distances(people: Sequence[Sequence[EncodedSession]], *, scale: float) -> list[Distances]:
    """All pairs of sessions of these people, whose gains lie in one array, person by person."""
    sizes = [len(sessions) for sessions in people]
    lengths = np.array([len(session) for sessions in people for session in sessions], dtype=int)
    owners = np.repeat(np.arange(len(people)), sizes)
    messages = np.bincount(owners, weights=lengths, minlength=len(people)).astype(int)
    begins = _before(lengths) - _before(messages)[owners]
    offsets = _before(messages**2)[owners]
    triangles = list(map(_triangle, sizes))
    one, other = np.concatenate(
        [triangle + first for triangle, first in zip(triangles, _before(np.array(sizes)), strict=True)],
        axis=1,
    )
    gains = np.concatenate([_gains(sessions, scale=scale) for sessions in people])
    strides = messages[owners[one]]
    corners = offsets[one] + begins[one] * strides + begins[other]
    found = np.zeros(len(one))
    step = max(1, _CELLS // (int(lengths.max(initial=0)) + 1) ** 2)
    for piece in (slice(at, at + step) for at in range(0, len(one), step)):
        heights, widths = lengths[one[piece]], lengths[other[piece]]
        saved = _most_saved(gains, corners[piece], strides[piece], heights, widths)
        found[piece] = heights + widths - saved
    tables = []
    for size, triangle, part in zip(
        sizes,
        triangles,
        np.split(found, np.cumsum([triangle.shape[1] for triangle in triangles])[:-1]),
        strict=True,
    ):
        table = np.zeros((size, size))
        table[triangle[0], triangle[1]] = table[triangle[1], triangle[0]] = part
        tables.append(table)
    return tables


@functools.lru_cache(maxsize=64)
def _triangle(size: int) -> npt.NDArray[np.integer]:
    """Every pair of so many sessions once: [2, pairs]."""
    return np.stack(np.tril_indices(size, -1))


def _before(sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """How much comes before each."""
    before: npt.NDArray[np.integer] = np.cumsum(sizes) - sizes
    return before


def _gains(sessions: Sequence[EncodedSession], *, scale: float) -> npt.NDArray[np.floating]:
    """What changing a message into another saves on deleting the one and inserting the other.

    Of any message of a person with any other, sessions in a row: [messages * messages]. Between speakers nothing.
    """
    if not sessions:
        return np.zeros(0)
    vectors = np.concatenate([session.vectors for session in sessions])
    speakers = np.concatenate([session.speakers for session in sessions])
    # Of a matrix with itself: numpy then computes half of it.
    gains: npt.NDArray[np.floating] = vectors @ vectors.T
    gains *= scale
    gains += 2 - scale
    gains *= speakers[:, None] == speakers
    return gains.ravel()


def _most_saved(
    gains: npt.NDArray[np.floating],
    corners: npt.NDArray[np.integer],
    strides: npt.NDArray[np.integer],
    heights: npt.NDArray[np.integer],
    widths: npt.NDArray[np.integer],
) -> npt.NDArray[np.float64]:
    """The greatest sum of gains that an alignment in order collects: float64 [pairs].

    Of each pair, `gains` holds the gains of its `heights` x `widths` messages from `corners` on, a row every `strides`.
    With lev(i, j) = i + j - saved(i, j), IDL's Eq. 7-10 become
    saved(i, j) = max(saved(i - 1, j), saved(i, j - 1), saved(i - 1, j - 1) + gain(i, j)).
    """
    saved = np.zeros((widths.max() + 1, len(corners)), dtype=gains.dtype)
    found = np.zeros(len(corners))
    places = corners + np.arange(widths.max())[:, None]
    for number in range(1, heights.max() + 1):
        # Beyond the end of a session any gain will do: it reaches no cell that counts.
        changed = saved[:-1] + gains.take(places, mode="clip")
        np.maximum(saved[1:], changed, out=saved[1:])
        np.maximum.accumulate(saved, axis=0, out=saved)
        ended = np.flatnonzero(heights == number)
        found[ended] = saved[widths[ended], ended]
        places += strides
    return found
