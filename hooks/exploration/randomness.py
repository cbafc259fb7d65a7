"""What follows from a seed: uniform numbers, generators, and orders that break ties without a bias."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from explorank.hooks.exploration.compiled import WORD, WRITTEN_VECTOR, WRITTEN_WORDS, inlined, kernel
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
            word = np.uint64(folded(self._seed ^ _STREAM))
            self._numbers = np.empty(max(_AT_ONCE, 2 * (self._used + count)))
            _write_uniforms(word, self._numbers)
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
        words = np.empty(n_words, np.uint64)
        _write_words(self._word, words)
        return words.astype(dtype, copy=False)


@kernel((WORD, WRITTEN_WORDS))
def _write_words(word: np.uint64, words: NDArray[np.uint64]) -> None:
    """Write the next outputs of a SplitMix64 whose state is `word`."""
    for number in range(len(words)):
        word += np.uint64(_GOLDEN)
        words[number] = _scrambled(word)


@kernel((WORD, WRITTEN_VECTOR))
def _write_uniforms(word: np.uint64, numbers: FloatArray) -> None:
    """Write the same as numbers in [0, 1): 53 bits fill a float64's significand, so that none is rounded up to 1."""
    for number in range(len(numbers)):
        word += np.uint64(_GOLDEN)
        numbers[number] = np.float64(_scrambled(word) >> np.uint64(11)) * 2.0**-53


@inlined
def _scrambled(word: np.uint64) -> np.uint64:
    """Return what `mixed` returns after it has added its constant."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
    return word ^ (word >> np.uint64(31))


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
    return _scrambled(np.uint64(row) * np.uint64(_GOLDEN) + seed)
