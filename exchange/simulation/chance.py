"""Random numbers named by a key and a counter: the same pair gives the same number, in any order of asking.

Kernels draw from here rather than from a generator with a state, so that what one account or market draws
does not depend on how many others there are, on the order of loops or on the number of threads. Whole
numbers stay np.uint64 throughout: compiled code turns uint64 with int64 into float64 and loses low bits.
"""

from __future__ import annotations

import numpy as np

from exchange.compiled import compiled

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
S12, S27, S30, S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)
ALL_BITS = (1 << 64) - 1


@compiled
def mix(a: np.uint64) -> np.uint64:
    """Bits of `a` stirred until each bit of the answer hangs on every bit of it; a bijection of uint64.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014, constants by Stafford).
    """
    z = np.uint64(a)
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


@compiled
def bits(key: np.uint64, counter: np.uint64) -> np.uint64:
    """64 random bits; neighbouring keys and neighbouring counters are unrelated."""
    return mix(np.uint64(key) ^ mix(np.uint64(counter) * GOLDEN + GOLDEN))


@compiled
def substream(key: np.uint64, stream: np.uint64) -> np.uint64:
    """Key of a stream within the stream of `key`, for use in compiled code."""
    return mix(bits(key, stream) + GOLDEN)


@compiled
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """Uniform in (0, 1), never 0 or 1; 52 bits."""
    return (float(np.int64(bits(key, counter) >> S12)) + 0.5) * 2.0**-52


@compiled
def normal_quantile(p: float) -> float:
    """x with P(N(0, 1) < x) = p, to about 1e-15 of x; p in (0, 1). Wichura 1988, algorithm AS 241."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        top = 2509.0809287301226727 * r + 33430.575583588128105
        top = ((top * r + 67265.770927008700853) * r + 45921.953931549871457) * r + 13731.693765509461125
        top = ((top * r + 1971.5909503065514427) * r + 133.14166789178437745) * r + 3.387132872796366608
        low = 5226.495278852854561 * r + 28729.085735721942674
        low = ((low * r + 39307.89580009271061) * r + 21213.794301586595867) * r + 5394.1960214247511077
        low = ((low * r + 687.1870074920579083) * r + 42.313330701600911252) * r + 1.0
        return q * top / low
    r = np.sqrt(-np.log(p if q < 0.0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        top = 7.7454501427834140764e-4 * r + 0.0227238449892691845833
        top = ((top * r + 0.24178072517745061177) * r + 1.27045825245236838258) * r + 3.64784832476320460504
        top = ((top * r + 5.7694972214606914055) * r + 4.6303378461565452959) * r + 1.42343711074968357734
        low = 1.05075007164441684324e-9 * r + 5.475938084995344946e-4
        low = ((low * r + 0.0151986665636164571966) * r + 0.14810397642748007459) * r + 0.68976733498510000455
        low = ((low * r + 1.6763848301838038494) * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        top = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
        top = ((top * r + 0.0012426609473880784386) * r + 0.026532189526576123093) * r + 0.2965605718285048912
        top = ((top * r + 1.7848265399172913358) * r + 5.4637849111641143699) * r + 6.6579046435011037772
        low = 2.04426310338993978564e-15 * r + 1.4215117583164458887e-7
        low = ((low * r + 1.8463183175100546818e-5) * r + 7.868691311456132591e-4) * r
        low = ((low + 0.0148753612908506148525) * r + 0.13692988092273580531) * r + 0.59983220655588793769
        low = low * r + 1.0
    return -top / low if q < 0.0 else top / low


@compiled
def normal(key: np.uint64, counter: np.uint64) -> float:
    """Normal of mean 0 and variance 1, at most about 8.2 in size."""
    return normal_quantile(uniform(key, counter))


@compiled
def exponential(key: np.uint64, counter: np.uint64) -> float:
    """Exponential of mean 1, above zero and at most about 37."""
    return -np.log(uniform(key, counter))


def key_of(seed: int, stream: int) -> np.uint64:
    """Key of one stream of a seed, from any two whole numbers; as np.uint64 it compiles kernels once only."""
    return np.uint64(substream(np.uint64(seed & ALL_BITS), np.uint64(stream & ALL_BITS)))
