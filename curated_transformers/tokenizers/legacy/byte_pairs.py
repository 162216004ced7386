"""Merging of byte pairs in words of any length.

`curated_tokenizers` goes through the whole word for each merge. That is fastest for ordinary words,
and takes hours for a word of a megabyte, such as a text in a script without spaces. Here the pairs
wait in a heap, so that n bytes take O(n log n).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

Merge = tuple[int, int, int]  # left id, right id, id of the merged piece


class BytePairMerger:
    """Applies merges, best rank first."""

    def __init__(self, merges: Iterable[Merge]) -> None:
        self._merges = list(merges)
        self._ranks = {(left, right): rank for rank, (left, right, _) in enumerate(self._merges)}

    def merge(self, ids: list[int]) -> list[int]:
        """The ids after all merges: the pair of the lowest rank is merged wherever it stands, from
        left to right, and again until no pair has a rank."""
        return _Word(ids, self._ranks, self._merges).merged()


class _Word:
    """A doubly linked list of ids in arrays. An id that was merged into its neighbour is -1."""

    def __init__(
        self, ids: list[int], ranks: dict[tuple[int, int], int], merges: list[Merge]
    ) -> None:
        self.ids = [*ids, -1]  # the end, which no pair includes
        self.next = list(range(1, len(ids) + 2))
        self.previous = list(range(-1, len(ids)))
        self.ranks = ranks
        self.merges = merges

    def merged(self) -> list[int]:
        n = len(self.ids)
        heap = [key for at in range(n - 2) if (key := self.key(at)) is not None]
        heapify(heap)
        while heap:
            rank = heap[0] // n
            appeared: list[int] = []  # they wait until this rank is done
            while heap and heap[0] // n == rank:
                self.merge_at(heappop(heap) % n, rank, appeared)
            for key in appeared:
                heappush(heap, key)
        return [piece_id for piece_id in self.ids if piece_id >= 0]

    def key(self, at: int) -> int | None:
        """Rank and place of the pair at ``at`` in a number that sorts by both."""
        rank = self.ranks.get((self.ids[at], self.ids[self.next[at]]))
        return None if rank is None else rank * len(self.ids) + at

    def merge_at(self, at: int, rank: int, appeared: list[int]) -> None:
        left, right, result = self.merges[rank]
        taken = self.next[at]
        if self.ids[at] != left or self.ids[taken] != right:
            return  # one of them has been merged since
        after = self.next[taken]
        self.ids[at], self.ids[taken] = result, -1
        self.next[at], self.previous[after] = after, at
        for place in (self.previous[at], at):
            key = self.key(place) if place >= 0 else None
            if key is not None:
                appeared.append(key)
