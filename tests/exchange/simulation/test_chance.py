"""Numbers by key and counter: pinned for good, with the right moments, and unrelated to their neighbours."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from exchange.compiled import compiled
from exchange.simulation.chance import (
    bits,
    exponential,
    key_of,
    mix,
    normal,
    normal_quantile,
    substream,
    uniform,
)

DRAWS = 200_000

GOLDEN_KEY = 0x9A739C658F045980
GOLDEN_SUBSTREAM = 0x750BFC4461A4158A
GOLDEN_UNIFORM = [0.025266202085602818, 0.7017700196514706, 0.7045355022372043]
GOLDEN_NORMAL = [-1.9554294394116163, 0.5294981020534281, 0.5374902824818681]
GOLDEN_EXPONENTIAL = [3.6782876622843106, 0.3541495359654193, 0.3502165553897571]


@compiled
def draws(key, count, stride, kind):
    out = np.empty(count)
    for n in range(count):
        counter = np.uint64(n) * np.uint64(stride)
        if kind == 0:
            out[n] = uniform(key, counter)
        elif kind == 1:
            out[n] = normal(key, counter)
        else:
            out[n] = exponential(key, counter)
    return out


@compiled
def first_of_each_key(count):
    out = np.empty(count)
    for n in range(count):
        out[n] = uniform(np.uint64(n), np.uint64(0))
    return out


def splitmix_finaliser(a: int) -> int:
    """The published definition in unbounded integers."""
    mask = (1 << 64) - 1
    a = ((a ^ (a >> 30)) * 0xBF58476D1CE4E5B9) & mask
    a = ((a ^ (a >> 27)) * 0x94D049BB133111EB) & mask
    return a ^ (a >> 31)


def test_mix_is_the_published_function_in_all_64_bits():
    for a in (0, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF):
        assert mix(np.uint64(a)) == splitmix_finaliser(a)
    # first outputs of SplitMix64 from seed 0, as every implementation gives them
    gamma = 0x9E3779B97F4A7C15
    assert mix(np.uint64(gamma)) == 0xE220A8397B1DCDAF
    assert mix(np.uint64(2 * gamma % 2**64)) == 0x6E789E6AA1B965F4


def test_low_bits_of_keys_and_counters_count():
    big = 2**63
    seen = {bits(np.uint64(big + k), np.uint64(big + c)) for k in range(40) for c in range(40)}
    assert len(seen) == 1600


def test_numbers_stay_what_they_were():
    key = key_of(7, 3)
    assert isinstance(key, np.uint64)
    assert int(key) == GOLDEN_KEY
    assert int(substream(key, np.uint64(1))) == GOLDEN_SUBSTREAM
    assert [uniform(key, np.uint64(c)) for c in range(3)] == GOLDEN_UNIFORM
    assert [normal(key, np.uint64(c)) for c in range(3)] == pytest.approx(GOLDEN_NORMAL, rel=1e-14)
    assert [exponential(key, np.uint64(c)) for c in range(3)] == pytest.approx(GOLDEN_EXPONENTIAL, rel=1e-14)


def test_signed_arguments_give_what_unsigned_ones_give():
    assert uniform(5, 9) == uniform(np.uint64(5), np.uint64(9))
    assert key_of(-1, 2) == key_of(2**64 - 1, 2) != key_of(1, 2)


def test_normal_quantile_inverts_the_distribution():
    for p in (2.0**-53, 1e-12, 1e-6, 0.01, 0.075, 0.0751, 0.3, 0.5, 0.7, 0.925, 0.999, 1 - 1e-9):
        x = normal_quantile(p)
        assert x == pytest.approx(NormalDist().inv_cdf(p), rel=1e-13, abs=1e-15)
        assert 0.5 * math.erfc(-x / math.sqrt(2)) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("stride", [1, 60, 2**32])
@pytest.mark.parametrize(
    ("kind", "moments"),
    [(0, (1 / 2, 1 / 3, 1 / 4, 1 / 5)), (1, (0.0, 1.0, 0.0, 3.0)), (2, (1.0, 2.0, 6.0, 24.0))],
)
def test_moments(kind, moments, stride):
    sample = draws(key_of(1, kind), DRAWS, stride, kind)
    for power, expected in enumerate(moments, start=1):
        raised = sample**power
        assert abs(raised.mean() - expected) < 5 * raised.std() / math.sqrt(DRAWS)


def test_uniforms_fill_every_cell_alike():
    for sample in (draws(key_of(2, 0), DRAWS, 1, 0), first_of_each_key(DRAWS)):
        assert sample.min() > 0.0 and sample.max() < 1.0
        pairs, _, _ = np.histogram2d(sample[:-1], sample[1:], bins=20, range=((0, 1), (0, 1)))
        expected = (DRAWS - 1) / 400
        chi2 = ((pairs - expected) ** 2 / expected).sum()
        assert 280 < chi2 < 530  # 399 degrees of freedom, 4.5 standard deviations either side


def test_streams_are_independent_of_each_other_and_of_themselves_later():
    limit = 5 / math.sqrt(DRAWS)
    base = draws(key_of(3, 0), DRAWS, 1, 1)
    for other in (draws(key_of(3, 1), DRAWS, 1, 1), draws(key_of(4, 0), DRAWS, 1, 1)):
        assert abs(np.corrcoef(base, other)[0, 1]) < limit
        assert abs(np.corrcoef(abs(base), abs(other))[0, 1]) < limit
    for lag in (1, 2, 60):
        assert abs(np.corrcoef(base[:-lag], base[lag:])[0, 1]) < limit
        assert abs(np.corrcoef(abs(base[:-lag]), abs(base[lag:]))[0, 1]) < limit
