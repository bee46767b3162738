"""Which books are alike, and where a reader would go next: pure computing, no framework."""

import math
import re
from collections import Counter
from operator import mul

WORD = re.compile(r"\w{3,}")
RESTART = 0.25  # how often the reader goes back to the books of the start


def weigh(texts):
    """Return for each text how much each word says about it (TF-IDF, of length 1)."""
    bags = [Counter(WORD.findall(text.lower())) for text in texts]
    spread = Counter(word for bag in bags for word in bag)
    return [
        unit({word: count * math.log(len(bags) / spread[word]) for word, count in bag.items()})
        for bag in bags
    ]


def unit(vector):
    """Return the vector with length 1."""
    length = math.hypot(*vector.values()) or 1
    return {word: weight / length for word, weight in vector.items()}


def likeness(vectors):
    """Return how a step from one text falls on the others: rows of probabilities."""
    rows = [
        [
            0 if one is other else sum(weight * other.get(word, 0) for word, weight in one.items())
            for other in vectors
        ]
        for one in vectors
    ]
    return [[value / (sum(row) or 1) for value in row] for row in rows]


def walk(rows, start, rounds):
    """Return how often a reader who goes from like to like is at each text (PageRank)."""
    home = [1 / len(start) if place in start else 0 for place in range(len(rows))]
    here, columns = home, list(zip(*rows, strict=True))
    for _ in range(rounds):
        here = [
            RESTART * base + (1 - RESTART) * sum(map(mul, here, column))
            for base, column in zip(home, columns, strict=True)
        ]
    return here
