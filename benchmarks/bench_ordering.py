"""Conversational edit distance and the order of sessions: ours against plain Python.

1. Encodings given: all pairs of sessions and the shortest order before the last one, of 500 people with ten sessions; the
   peer fills one table per pair cell by cell, and one of sets of sessions, both in Python, cosines by one product a pair.
2. With encoding, 20 people: the peer encodes the messages of each pair of sessions in one batch.

Sessions are those of the synthetic corpus, so nothing else is needed; the encoder is the offline MiniLM.
The last line is a JSON object; the exit code is 1 where a ratio misses its target or the distances or the lengths of the
ways differ.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from _report import Row
from personalign.cli._output import emit_json, quieten
from personalign.data.dialogue import Dialogue
from personalign.data.synthetic import generate
from personalign.errors import PersonalignError
from personalign.models.encoder import Encoder, load_encoder
from personalign.personas.edit_distance import (
    SCALE,
    EncodedSession,
    edit_distances,
    edit_distances_of,
    encode_sessions,
)
from personalign.personas.ordering import order_sessions_of

GIVEN_TARGET = 20.0
ENCODING_TARGET = 8.0
# Of float32 cosines; encodings of one message in two batches differ in their last digits.
TOLERANCE = 1e-3

Found = tuple[list[list[list[float]]], list[float]]
"""Of each person the distances and the length of the way."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--encoded-people", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of either side; the fastest counts")
    options = parser.parse_args()
    quieten()
    try:
        encoder = load_encoder()
        people = _people(options.people, options.sessions)
        rows = [
            given(people, encoder, rounds=options.rounds),
            encoding(people[: options.encoded_people], encoder, rounds=options.rounds),
        ]
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(
            f"{row.name}: ours {row.ours:.3f} s, peer {row.peer:.3f} s, ratio {row.ratio:.1f} (target {row.target})"
        )
    emit_json({"rows": [asdict(row) for row in rows]})
    return 0 if all(row.ok for row in rows) else 1


def given(people: Sequence[Sequence[Dialogue]], encoder: Encoder, *, rounds: int) -> Row:
    sessions = [session for person in people for session in person]
    vectors = iter(encode_sessions(sessions, encoder))
    encoded = [[next(vectors) for _ in person] for person in people]

    def ours() -> Found:
        tables = edit_distances_of(encoded)
        orders = order_sessions_of(tables, [len(table) - 1 for table in tables], rule="exact")
        return [table.tolist() for table in tables], [order.length for order in orders]

    def peer() -> Found:
        tables = [
            plain_distances(person, lambda one, other: one.vectors @ other.vectors.T) for person in encoded
        ]
        return tables, [plain_shortest(table) for table in tables]

    return _row(f"{len(people)} people, encodings given", ours, peer, target=GIVEN_TARGET, rounds=rounds)


def encoding(people: Sequence[Sequence[Dialogue]], encoder: Encoder, *, rounds: int) -> Row:
    def ours() -> Found:
        tables = [edit_distances(encode_sessions(person, encoder)) for person in people]
        return [table.tolist() for table in tables], []

    def peer() -> Found:
        return [plain_distances_of_texts(person, encoder) for person in people], []

    return _row(f"{len(people)} people, with encoding", ours, peer, target=ENCODING_TARGET, rounds=rounds)


def plain_distances(
    sessions: Sequence[EncodedSession], cosines: Callable[[EncodedSession, EncodedSession], np.ndarray]
) -> list[list[float]]:
    table = [[0.0] * len(sessions) for _ in sessions]
    for a, b in itertools.combinations(range(len(sessions)), 2):
        one, other = sessions[a], sessions[b]
        found = plain_alignment(cosines(one, other).tolist(), one.speakers.tolist(), other.speakers.tolist())
        table[a][b] = table[b][a] = found
    return table


def plain_distances_of_texts(sessions: Sequence[Dialogue], encoder: Encoder) -> list[list[float]]:
    table = [[0.0] * len(sessions) for _ in sessions]
    for a, b in itertools.combinations(range(len(sessions)), 2):
        one, other = encode_sessions([sessions[a], sessions[b]], encoder)
        cosines = (one.vectors @ other.vectors.T).tolist()
        table[a][b] = table[b][a] = plain_alignment(cosines, one.speakers.tolist(), other.speakers.tolist())
    return table


def plain_alignment(cosines: list[list[float]], rows: list[int], columns: list[int]) -> float:
    """Eq. 7-10 of IDL, cell by cell."""
    before = [float(at) for at in range(len(columns) + 1)]
    for i, row in enumerate(rows):
        here = [i + 1.0]
        for j, column in enumerate(columns):
            cost = min(before[j + 1], here[j]) + 1
            if row == column:
                cost = min(cost, before[j] + SCALE * (1 - cosines[i][j]))
            here.append(cost)
        before = here
    return before[-1]


def plain_shortest(table: list[list[float]]) -> float:
    """The shortest way through all sessions that ends at the last (Held and Karp)."""
    target = len(table) - 1
    if not target:
        return 0.0
    costs = {(1 << at, at): table[at][target] for at in range(target)}
    for members in range(1, 1 << target):
        if members & (members - 1) == 0:
            continue
        inside = [at for at in range(target) if members >> at & 1]
        for first in inside:
            rest = members ^ (1 << first)
            costs[members, first] = min(costs[rest, at] + table[first][at] for at in inside if at != first)
    return min(costs[(1 << target) - 1, at] for at in range(target))


def _row(
    name: str, ours: Callable[[], Found], peer: Callable[[], Found], *, target: float, rounds: int
) -> Row:
    best = {"ours": math.inf, "peer": math.inf}
    for _ in range(rounds):
        start = time.perf_counter()
        tables, ways = ours()
        best["ours"] = min(best["ours"], time.perf_counter() - start)
        start = time.perf_counter()
        peer_tables, peer_ways = peer()
        best["peer"] = min(best["peer"], time.perf_counter() - start)
    flat = [value for table in tables for row in table for value in row] + ways
    peer_flat = [value for table in peer_tables for row in table for value in row] + peer_ways
    gap = max(abs(a - b) for a, b in zip(flat, peer_flat, strict=True))
    ratio = best["peer"] / best["ours"]
    details = {
        "unit": "s",
        "pairs": sum(len(table) * (len(table) - 1) // 2 for table in tables),
        "largest_difference": gap,
    }
    return Row(name, best["ours"], best["peer"], ratio, target, ratio >= target and gap <= TOLERANCE, details)


def _people(people: int, sessions: int) -> list[list[Dialogue]]:
    corpus = generate("en", seed=1, people={"train": people}, sessions_per_person=sessions)
    return [list(group) for _, group in itertools.groupby(corpus.train, key=lambda item: item.person)]


if __name__ == "__main__":
    sys.exit(main())
