"""What is known of regret beforehand."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.regret.worlds import Numbers


def divergence(p: float, q: float) -> float:
    """Return the Kullback-Leibler divergence of a Bernoulli(p) from a Bernoulli(q), in nats; q in (0, 1)."""
    gained = p * math.log(p / q) if p > 0.0 else 0.0
    lost = (1.0 - p) * math.log((1.0 - p) / (1.0 - q)) if p < 1.0 else 0.0
    return gained + lost


def lai_robbins(rates: Numbers) -> float:
    """Return c such that no consistent policy's regret grows slower than c · ln T, for Bernoulli arms.

        c = Σ_i (p* - p_i) / KL(p_i, p*)      over the arms with p_i < p*

    Lai and Robbins, *Asymptotically Efficient Adaptive Allocation Rules* (1985). It speaks of T without end: at
    a given T a policy may well have lost less.
    """
    best = float(rates.max())
    worse: list[float] = rates[rates < best].tolist()
    return sum((best - rate) / divergence(rate, best) for rate in worse)


def information_bound(dim: int, arms: int, deviation: float, rounds: Numbers) -> Numbers:
    """Return a bound on Thompson sampling's expected regret in a linear world whose prior is true.

        E[R_T] ≤ s · sqrt(2 d ln K · T)

    with s such that a reward is s-sub-Gaussian given the past: of coefficients N(0, I), features of length 1 and
    noise n, s² = 1 + n². Russo and Van Roy, *An Information-Theoretic Analysis of Thompson Sampling* (2016),
    with the entropy of the best of K at its largest.
    """
    bound: Numbers = deviation * np.sqrt(2.0 * dim * math.log(arms) * rounds)
    return bound


def growth(regret: Numbers, rounds: Numbers) -> float:
    """Return the exponent with which regret grows over the last three quarters of the rounds.

    0.5 is sqrt(T), 1 is a constant loss per round, and what grows with ln T tends to 0.
    """
    early = int(np.searchsorted(rounds, rounds[-1] / 4.0))
    return float(np.log(regret[-1] / regret[early]) / np.log(rounds[-1] / rounds[early]))


def slope(regret: Numbers, rounds: Numbers) -> float:
    """Return how much regret grows per e-fold of the rounds, over the last tenth-power: from T/10 to T."""
    early = int(np.searchsorted(rounds, rounds[-1] / 10.0))
    return float((regret[-1] - regret[early]) / np.log(rounds[-1] / rounds[early]))
