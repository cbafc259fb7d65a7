"""What follows from a seed: uniform numbers, generators, and orders that break ties without a bias."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from explorank.hooks.exploration.compiled import INTEGER, WORD, inlined, kernel
from explorank.hooks.types import FloatArray

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD: Final = (1 << 64) - 1
_AT_ONCE: Final = 16
_STREAM: Final = 0xD1B54A32D192ED03  # keeps the slots' numbers apart from all else that a seed gives


def mixed(number: int) -> int:
    """Return 64 bits that look random and follow from `number`, a bijection of 64-bit numbers.

    The output function of SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
    Generators*, 2014).
    """
    number = (number + _GOLDEN) & _WORD
    number = ((number ^ (number >> 30)) * _MULTIPLIERS[0]) & _WORD
    number = ((number ^ (number >> 27)) * _MULTIPLIERS[1]) & _WORD
    return number ^ (number >> 31)


def folded(seed: int) -> int:
    """Return 64 bits that follow from a seed of any width."""
    while seed > _WORD:
        seed = mixed(seed & _WORD) ^ (seed >> 64)
    return mixed(seed)


class Uniforms:
    """A stream of uniform numbers in [0, 1) that follows from a seed: few of them, at the least cost."""

    __slots__ = ("_numbers", "_seed", "_used")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers: FloatArray = np.empty(0)
        self._used = 0

    def ahead(self, count: int) -> FloatArray:
        """Return the next `count` numbers, (count,), without using them."""
        if self._used + count > len(self._numbers):
            # 53 bits fill a float64's significand exactly, so the results are below 1.
            words = _words(np.uint64(folded(self._seed ^ _STREAM)), max(_AT_ONCE, 2 * (self._used + count)))
            self._numbers = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return self._numbers[self._used : self._used + count]

    def use(self, count: int) -> None:
        """Go on by `count` numbers."""
        self._used += count

    def next(self) -> float:
        """Return the next number, and use it."""
        number = float(self.ahead(1)[0])
        self._used += 1
        return number


class _Words(ISeedSequence):
    """The state of a bit generator, taken from a seed in a tenth of the time of numpy's own hashing."""

    def __init__(self, word: np.uint64) -> None:
        self._word = word

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return _words(self._word, n_words).astype(dtype, copy=False)


@kernel((WORD, INTEGER))
def _words(word: np.uint64, count: int) -> NDArray[np.uint64]:
    """Return the next `count` outputs of SplitMix64 whose state is `word`."""
    words = np.empty(count, np.uint64)
    for number in range(count):
        word += np.uint64(_GOLDEN)
        mixed = (word ^ (word >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
        words[number] = mixed ^ (mixed >> np.uint64(31))
    return words


def generator(seed: int) -> np.random.Generator:
    """Return the generator of one request; equal seeds give equal numbers."""
    # Named, because the default bit generator may change with numpy, and replay must not.
    words: Any = _Words(np.uint64(folded(seed)))  # numpy's types know no other seed sequence than its own
    return np.random.Generator(np.random.SFC64(words))


def tie_seed(seed: int) -> np.uint64:
    """Return the seed of the order in which the candidates of one request win ties."""
    return np.uint64(folded(seed))


def drawn_tie_seed(rng: np.random.Generator) -> np.uint64:
    """Return the seed of an order that `rng` draws."""
    return np.uint64(folded(int(rng.bit_generator.random_raw())))


@inlined
def tie_key(row: int, seed: np.uint64) -> np.uint64:
    """Return the key of a row: distinct rows have distinct keys, whoever else is asked for. The smallest wins.

    A bijection of 64-bit numbers, as `mixed` is; the arithmetic wraps around.
    """
    key = np.uint64(row) * np.uint64(_GOLDEN) + seed
    key ^= key >> np.uint64(30)
    key *= np.uint64(_MULTIPLIERS[0])
    key ^= key >> np.uint64(27)
    key *= np.uint64(_MULTIPLIERS[1])
    key ^= key >> np.uint64(31)
    return key
