"""Probabilities of rare events against exact ones; intervals that hold; honesty where they cannot."""

from concurrent.futures import ThreadPoolExecutor
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import fabulate
from fabulate import rare
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.prob import systematic
from fabulate.seeds import generator
from fabulate.uses.rare import adaptive
from fabulate.uses.rare.adaptive import Round, contradicted, promise
from fabulate.uses.rare.event import unseen
from fabulate.uses.rare.pareto import RELIED, fitted, pareto_k
from fabulate.uses.rare.proposal import (
    Defended,
    Nominal,
    SubspaceMixture,
    TMixture,
    expectation_maximisation,
    fit_t_mixture,
    noise_edges,
    signal_subspace,
)
from fabulate.uses.rare.scouts import scouting, scouts


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "rare test"), dtype=torch.float64)


def frame(dim: int, size: int) -> np.ndarray:
    """`size` orthonormal directions (dim, size), along no axis."""
    return torch.linalg.qr(normal(dim, size, seed=7)).Q.numpy()


def linear(dim):
    return lambda x: x @ frame(dim, 1)[:, 0]


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def agrees(event, truth, error):
    """Within five standard errors, which are no larger than `error` times the truth, and without a warning."""
    assert event.warnings == ()
    assert 0 < event.standard_error < error * truth
    assert abs(event.probability - truth) < 5 * event.standard_error


@pytest.mark.parametrize(("dim", "calls"), [(1, 5000), (20, 8000), (100, 20_000)])
def test_beyond_a_plane(dim, calls):
    agrees(rare.estimate(linear(dim), dim, 3.5, calls=calls), stats.norm.sf(3.5), 0.04)


@pytest.mark.parametrize(
    ("g", "dim", "threshold", "calls", "truth", "error"),
    [
        (lambda x: linear(10)(x), 10, 5.0, 60_000, stats.norm.sf(5.0), 0.03),  # one in three million
        (lambda x: two_modes(x), 30, 3.0, 15_000, stats.norm.sf(3.0) + stats.norm.sf(3.3), 0.04),
        (lambda x: np.linalg.norm(x @ frame(30, 2), axis=1), 30, 4.0, 15_000, np.exp(-8), 0.06),  # beyond a cylinder
        (lambda x: (x**2).sum(1), 40, 90.0, 10_000, stats.chi2.sf(90, 40), 0.1),  # beyond a ball: no direction at all
        (lambda x: linear(5)(x), 5, 0.5, 4000, stats.norm.sf(0.5), 0.04),  # not rare
        (lambda x: linear(5)(x), 5, -2.0, 4000, stats.norm.sf(-2.0), 0.01),
        (lambda x: linear(5)(x) > 2, 5, 0.5, 20_000, stats.norm.sf(2), 0.05),  # yes or no, where failures are met
        (lambda x: infinite(x), 3, 3.0, 5000, stats.norm.sf(3), 0.06),
    ],
    ids=["5 sigma", "two modes", "cylinder", "ball", "half", "nearly all", "yes or no", "infinities"],
)
def test_known_probabilities(g, dim, threshold, calls, truth, error):
    agrees(rare.estimate(g, dim, threshold, calls=calls), truth, error)


def two_modes(x):
    return np.maximum(x @ frame(30, 1)[:, 0], -x @ frame(30, 1)[:, 0] - 0.3)


def infinite(x):
    return np.where(x[:, 0] > 3, np.inf, np.where(x[:, 0] < 0, -np.inf, x[:, 0]))


def test_more_modes_than_can_be_learned_are_confessed():
    """The largest of 100 numbers: 200 modes, every direction matters."""
    truth = 1 - (1 - 2 * stats.norm.sf(4.5)) ** 100
    event = rare.estimate(lambda x: abs(x).max(1), 100, 4.5, calls=10_000)
    assert any("effective" in words or "no failure" in words for words in event.warnings)
    assert event.interval[0] <= truth <= event.interval[1]


@pytest.mark.slow
def test_intervals_hold_the_truth_and_errors_average_out():
    runs, truth = 24, 2 * stats.norm.sf(3.0)
    u = frame(8, 1)[:, 0]
    events = [rare.estimate(lambda x: abs(x @ u), 8, 3.0, calls=2000, seed=seed) for seed in range(runs)]
    held = sum(event.interval[0] <= truth <= event.interval[1] for event in events)
    assert stats.binom.cdf(held, runs, 0.95) > 1e-3
    mean = np.mean([event.probability for event in events])
    spread = sqrt(sum(event.standard_error**2 for event in events)) / runs
    assert abs(mean - truth) < 5 * spread


@pytest.mark.parametrize("calls", [100, 499, 1003, 4777])
def test_calls_are_what_g_saw_and_the_budget(calls):
    seen, heard = [], []

    def g(x):
        seen.append(len(x))
        return x[:, 0]

    event = rare.estimate(g, 3, 2.0, calls=calls, progress=lambda *at: heard.append(at))
    assert sum(seen) == event.calls == calls
    assert heard == [(sum(seen[: k + 1]), calls) for k in range(len(seen))]


def test_equal_seeds_give_equal_numbers_and_others_do_not():
    one, same, other = (rare.estimate(linear(6), 6, 3.0, calls=3000, seed=seed) for seed in (1, 1, 2))
    assert (one.probability, one.standard_error, one.levels) == (same.probability, same.standard_error, same.levels)
    assert one.probability != other.probability
    assert np.array_equal(one.sample(5)[0], same.sample(5)[0])


def test_an_impossible_event_says_so():
    event = rare.estimate(lambda x: -abs(x[:, 0]), 10, 0.5, calls=4000)
    assert event.probability == 0 and event.standard_error == 0
    assert event.interval[0] == 0 and 3 / 4000 < event.interval[1] < 0.01
    assert "not the threshold 0.5" in event.warnings[0] and "no failure in 4000 calls" in event.warnings[1]
    assert "warning: no failure" in str(event)


def test_a_constant_simulator_is_no_special_case():
    assert rare.estimate(lambda x: np.zeros(len(x)), 4, 1.0, calls=2000).probability == 0
    assert rare.estimate(lambda x: np.ones(len(x)), 4, 0.0, calls=2000).probability == pytest.approx(1, abs=0.1)


def test_the_only_failure_that_was_met_counts():
    """In the first round, to which no other round gives weight; before it come the scouts."""
    met = iter([False, True])
    event = rare.estimate(lambda x: np.arange(len(x)) < next(met, False), 50, 0.5, calls=5000)
    drawn = 5000 - scouts(5000)
    assert event.probability == pytest.approx(1 / drawn)
    assert event.interval[0] < 1 / drawn < event.interval[1]
    assert any("1 effective failures" in words for words in event.warnings)


def test_rounds_that_contradict_each_other_are_reported():
    """A simulator that fails more often in its second half."""
    asked = []

    def drifting(x):
        asked.append(len(x))
        return x[:, 0] + (0.2 if sum(asked) > 10_000 else 0)

    event = rare.estimate(drifting, 4, 2.5, calls=20_000)
    assert any("disagree" in words for words in event.warnings)


def test_rounds_that_are_blind_to_a_mode_count_little():
    """A proposal that finds a second mode only in the last rounds."""
    rounds = iter(range(100))

    def late(x, weights, chance):
        return Shifted(4, 2.5 if next(rounds) < 10 else -2.5)

    truth = stats.norm.sf(2.5) + stats.norm.sf(2.6)
    event = rare.estimate(lambda x: np.maximum(x[:, 0], -x[:, 0] - 0.1), 4, 2.5, calls=20_000, proposal=late)
    agrees(event, truth, 0.1)


def test_g_may_be_torch_and_may_write_into_its_input():
    def spoiling(x):
        result = x[:, 0].copy()
        x[:] = 0
        return result

    plain, spoiled, tensor = (
        rare.estimate(g, 3, 3.0, calls=2000) for g in (lambda x: x[:, 0], spoiling, lambda x: torch.from_numpy(x)[:, 0])
    )
    assert plain.probability == spoiled.probability == tensor.probability


def test_not_a_number_is_no_failure_and_the_interval_reaches_up_to_what_it_may_hide():
    event = rare.estimate(lambda x: np.where(x[:, 1] > 1, np.nan, x[:, 0]), 3, 2.0, calls=10_000)
    truth = stats.norm.sf(2) * stats.norm.cdf(1)
    assert abs(event.probability - truth) < 5 * event.standard_error
    (words,) = event.warnings
    assert float(words.split("would add ")[1].split(",")[0]) == pytest.approx(stats.norm.sf(1), rel=0.3)
    assert truth + stats.norm.sf(1) < event.interval[1] < 2 * stats.norm.sf(1)


def test_points_at_which_g_raises_are_found_and_the_others_kept():
    def raising(x):
        if (x[:, 1] > 2).any():
            raise ZeroDivisionError("no equilibrium")
        return x[:, 0]

    event = rare.estimate(raising, 2, 2.0, calls=3000)
    gaps = rare.estimate(lambda x: np.where(x[:, 1] > 2, np.nan, x[:, 0]), 2, 2.0, calls=3000)
    assert event.probability == gaps.probability and event.interval == gaps.interval
    assert "ZeroDivisionError: no equilibrium" in event.warnings[-1]
    with pytest.raises(DataError, match=r"all of \d+ points \(ValueError: missing\)"):
        rare.estimate(lambda x: (_ for _ in ()).throw(ValueError("missing")), 2, 2.0, calls=1000)


def test_what_g_said_before_it_was_killed_is_not_asked_again(tmp_path):
    asked = []

    def counted(x):
        if len(asked) == 11:  # in the second round
            raise KeyboardInterrupt
        asked.append(len(x))
        return x[:, 0]

    whole = rare.estimate(lambda x: x[:, 0], 2, 3.0, calls=3000)
    with pytest.raises(KeyboardInterrupt):
        rare.estimate(counted, 2, 3.0, calls=3000, file=tmp_path / "said.npz")
    before = sum(asked)
    asked.append(0)  # past the eleventh
    again = rare.estimate(counted, 2, 3.0, calls=3000, file=tmp_path / "said.npz")
    # One point is asked twice, to know the simulator again.
    assert before > 0 and sum(asked) == 3000 + 1 and again.probability == whole.probability
    with pytest.raises(RunError, match="what another simulator said"):
        rare.estimate(lambda x: x[:, 1], 2, 3.0, calls=3000, file=tmp_path / "said.npz")
    (tmp_path / "other.npz").write_text("no zip")
    with pytest.raises(RunError, match=r"other\.npz is no file of a simulator's answers"):
        rare.estimate(counted, 2, 3.0, calls=3000, file=tmp_path / "other.npz")


def test_workers_give_what_one_gives():
    one = rare.estimate(linear(3), 3, 3.0, calls=2000)
    with ThreadPoolExecutor(2) as threads:
        shared = rare.estimate(linear(3), 3, 3.0, calls=2000, workers=threads)
    assert one.probability == pytest.approx(shared.probability, rel=1e-9)
    with pytest.raises(ConfigError, match="workers"):
        rare.estimate(linear(3), 3, 3.0, workers=0)


@pytest.mark.slow
def test_processes_give_what_one_gives():
    one, two = (rare.estimate(linear(3), 3, 3.0, calls=2000, workers=workers) for workers in (1, 2))
    assert one.probability == pytest.approx(two.probability, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "g", "dim", "threshold", "truth"),
    [
        ("subset", linear(100), 100, 3.5, stats.norm.sf(3.5)),
        ("subset", lambda x: np.abs(x[:, 0]), 5, 4.0, 2 * stats.norm.sf(4)),
        ("cross-entropy", linear(10), 10, 3.5, stats.norm.sf(3.5)),
    ],
)
def test_classical_methods_agree_with_known_probabilities(method, g, dim, threshold, truth):
    found = [rare.estimate(g, dim, threshold, calls=20_000, method=method, seed=seed) for seed in range(12)]
    values = np.array([event.probability for event in found]) / truth
    # Levels are fitted to their own points, which biases a product of shares by a little.
    assert abs(values.mean() - 1) < 5 * values.std() / 12**0.5 + 0.02 and values.std() < 0.35
    assert sum(event.interval[0] < truth < event.interval[1] for event in found) >= 9
    assert all(event.calls <= 20_000 and not event.warnings for event in found)
    x, weights = found[0].sample(4000)
    assert float(weights @ (g(x) > threshold)) / len(x) == pytest.approx(truth, rel=0.3)


@pytest.mark.parametrize("method", ["subset", "cross-entropy"])
def test_classical_methods_refuse_a_simulator_that_always_fails(method):
    with pytest.raises(DataError, match="NaN for all of"):
        rare.estimate(lambda x: np.full(len(x), np.nan), 2, 1.0, method=method)


def test_classical_methods_say_what_they_did_not_reach():
    for method in ("subset", "cross-entropy"):
        assert any("not the threshold" in words for words in rare.estimate(linear(2), 2, 9.0, method=method).warnings)
    with pytest.raises(ConfigError, match=r"no method 'subsett'.*subset"):
        rare.estimate(linear(2), 2, 3.0, method="subsett")


@pytest.mark.parametrize(
    ("g", "words"),
    [
        (lambda x: x, r"shape \(25,\), not \(25, 2\)"),
        (lambda x: x.sum(), r"not \(\)"),
        (lambda x: x[:, 0] + 1j, "complex128"),
        (lambda x: np.full(len(x), np.nan), "NaN for all of"),
    ],
)
def test_what_g_must_not_give(g, words):
    with pytest.raises(DataError, match=words):
        rare.estimate(g, 2, 1.0, calls=1000)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"dim": 0}, "dim"), ({"threshold": np.nan}, "threshold"), ({"calls": 99}, "at least 100, not 99")],
)
def test_what_cannot_be_asked(wrong, words):
    with pytest.raises(ConfigError, match=words):
        rare.estimate(linear(2), **{"dim": 2, "threshold": 1.0, **wrong})


class Shifted:
    """N(shift e_1, I): a proposal of one's own."""

    def __init__(self, dim, shift):
        self.nominal, self.shift = Nominal(dim), shift

    def draw(self, n, generator):
        x = self.nominal.draw(n, generator)
        x[:, 0] += self.shift
        return x

    def log_ratio(self, x):
        return self.shift * x[:, 0] - self.shift**2 / 2


def test_any_proposal_gives_the_same_probability_and_a_better_one_a_smaller_error(monkeypatch):
    monkeypatch.setattr(adaptive, "scouts", lambda calls: 0)  # they show what a bad one does not cover
    good, bad = (
        rare.estimate(lambda x: x[:, 0], 4, 2.5, calls=20_000, proposal=lambda x, w, _, s=s: Shifted(4, s))
        for s in (2.5, -1.0)
    )
    agrees(good, stats.norm.sf(2.5), 0.05)
    assert abs(bad.probability - stats.norm.sf(2.5)) < 5 * bad.standard_error
    assert 4 * good.standard_error < bad.standard_error


def test_samples_weigh_as_much_as_the_prior_and_its_failures_as_much_as_they_are_likely():
    event = rare.estimate(linear(6), 6, 3.0, calls=5000)
    x, weights = event.sample(20_000, seed=3)
    failed = linear(6)(x) > 3
    assert failed.mean() > 0.5
    for values, truth in [(weights, 1), (weights * failed, stats.norm.sf(3))]:
        assert abs(values.mean() - truth) < 5 * values.std() / sqrt(len(values))


MIXTURE = TMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[1.0, -1.0], [-2.0, 0.5]], dtype=torch.float64),
    torch.tensor([[[0.8, 0.0], [0.3, 0.5]], [[1.2, 0.0], [-0.4, 0.9]]], dtype=torch.float64),
    5,
)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_ratios_are_those_of_the_draws(share):
    """E_q f(x) p(x) / q(x) = E_p f(x), for f = 1 and two moments that differ under q."""
    basis = torch.from_numpy(frame(6, 2))
    inner = SubspaceMixture(basis, 1.3, MIXTURE)
    q = Defended(inner, 6, share) if share else inner
    x = q.draw(200_000, generator(0, "ratios"))
    weights = (-q.log_ratio(x)).exp()
    for values, truth in [(weights, 1.0), (weights * (x @ basis)[:, 0], 0.0), (weights * x.square().sum(1), 6.0)]:
        assert abs(values.mean() - truth) < 5 * values.std() / sqrt(len(x)) + 1e-12


def test_student_t_of_one_component_is_that_of_scipy():
    one = TMixture(torch.ones(1, dtype=torch.float64), MIXTURE.centres[:1], MIXTURE.roots[:1], 5)
    z = 3 * normal(50, 2)
    expected = stats.multivariate_t(MIXTURE.centres[0].numpy(), (MIXTURE.roots[0] @ MIXTURE.roots[0].T).numpy(), df=5)
    np.testing.assert_allclose(one.log_density(z).numpy(), expected.logpdf(z.numpy()))


def test_a_mixture_finds_as_many_modes_as_there_are():
    where = torch.tensor([[4.0, 0, 0], [-4.0, 0, 0], [0, 4.0, 0]], dtype=torch.float64)
    z = where[torch.arange(900) % 3] + 0.4 * torch.cat([normal(900, 3)])
    model = fit_t_mixture(z, generator(0, "fit"), 50)  # nearly normal, as the points are
    assert len(model.shares) == 3
    assert torch.cdist(model.centres, where).amin(0).max() < 5 * 0.4 * sqrt(3 / 300)


def test_edges_of_noise_are_those_of_marchenko_and_pastur_and_hold_with_weights():
    for n, dim in [(400, 100), (1000, 10), (500, 500)]:
        low, high = noise_edges(equal(n), dim)
        assert high == pytest.approx((1 + sqrt(dim / n)) ** 2, rel=1e-6)
        assert low == pytest.approx((1 - sqrt(dim / n)) ** 2, rel=1e-6, abs=1e-4)
    weights = normal(2000, seed=1).exp()
    weights /= weights.sum()
    x = normal(2000, 200)
    values = torch.linalg.eigvalsh(x.T @ (x * weights[:, None]))
    low, high = noise_edges(weights, 200)
    assert values[-1] == pytest.approx(high, rel=0.1) and values[0] == pytest.approx(low, rel=0.1)
    assert high > 1.2 * (1 + sqrt(200 / 2000)) ** 2  # weights widen it


def test_directions_are_those_in_which_points_differ_from_noise():
    u = torch.from_numpy(frame(50, 3))
    x = normal(2000, 50)
    assert signal_subspace(x, equal(2000))[0].shape == (50, 0)
    scale = torch.tensor([3.0, 2.0, 0.3], dtype=torch.float64)
    basis, variance = signal_subspace(1.5 * (x + (x @ u * (scale - 1)) @ u.T), equal(2000))
    assert basis.shape == (50, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.svdvals(u.T @ basis).min() > 0.97
    assert variance == pytest.approx(2.25, abs=5 * 2.25 * sqrt(2 / (2000 * 47)))
    few, variance = signal_subspace(normal(20, 50), equal(20))  # fewer points than dimensions
    assert few.shape[0] == 50 and 0 < variance < 2
    assert signal_subspace(2 * x, equal(2000))[1] == pytest.approx(4 * float(x.square().mean()))


def test_resampling_keeps_each_points_share():
    weights = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    counts = torch.bincount(systematic(weights, 400, generator(0, "drawn")), minlength=4)
    assert (counts - 400 * weights).abs().max() <= 1 and counts[3] == 0


def test_bounds_of_counts():
    assert (1 - unseen(1000)) ** 1000 == pytest.approx(0.05)
    assert contradicted(10, 1000, 1e-3) and not contradicted(3, 1000, 1e-3) and not contradicted(0, 1000, 0.5)


def test_the_example(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import rare_event

    assert fabulate.rare is rare
    event = rare_event.main(calls=6000)
    assert 5e-5 < event.probability < 1e-3 and event.warnings == ()
    assert log(event.interval[1] / event.interval[0]) < 0.5
    assert "in 6000 calls" in capsys.readouterr().out


# What was lost without a word


def test_modes_of_equal_slope_are_all_found():
    """Four, of which two are a tenth to two thirds of the failures on the levels before."""

    def branches(x):
        u, v = (x[:, 0] + x[:, 1]) / sqrt(2), (x[:, 0] - x[:, 1]) / sqrt(2)
        return np.maximum(abs(u) - 0.2 * v**2 - 5, sqrt(2) * (abs(v) - 4.914))

    v = np.linspace(-4.914, 4.914, 10_001)
    bent = 2 * stats.norm.sf(5 + 0.2 * v**2) * stats.norm.pdf(v)
    truth = float(np.trapezoid(bent, v)) + 2 * stats.norm.sf(4.914)
    agrees(rare.estimate(branches, 2, 0.0), truth, 0.02)


@pytest.mark.parametrize(
    ("dim", "slope", "seed"),
    [(2, 3, 0), (2, 10, 1), (50, 3, 2), *(pytest.param(50, 10, seed, marks=pytest.mark.slow) for seed in range(3))],
)
def test_mechanisms_in_other_units_are_all_found(dim, slope, seed):
    event = rare.estimate(lambda x: np.maximum(x[:, 0] - 4, slope * (x[:, -1] - 4)), dim, 0.0, seed=seed)
    agrees(event, 1 - stats.norm.cdf(4) ** 2, 0.02)


def test_a_second_end_of_one_variable_is_found():
    event = rare.estimate(lambda x: np.maximum(x[:, 0] - 4.5, 3 * (-x[:, 0] - 4.6)), 1, 0.0)
    agrees(event, stats.norm.sf(4.5) + stats.norm.sf(4.6), 0.02)


def test_scouts_show_a_mode_in_the_directions_that_decide_and_leave_the_others_to_chance():
    x = 3 * normal(2000, 50)
    g = torch.maximum(x[:, 0] - 4, 9 * (x[:, 1] - 4))
    covered = Shifted(50, 4.0)  # draws beyond the first plane
    both = scouting(covered, x[g > 0], generator(0, "scouts"))
    second = both.second.draw(4000, generator(1, "scouts"))
    assert float((second[:, 1] > 4).double().mean()) > 1000 * stats.norm.sf(4)
    assert torch.allclose(second[:, 2:].var(0), torch.ones(48).double(), atol=5 * sqrt(2 / 4000))
    assert scouting(covered, x[x[:, 0] > 6], generator(0, "scouts")) is covered


@pytest.mark.parametrize(("dim", "truth"), [(10, 1e-9), (50, 1e-12)])
def test_one_in_a_billion(dim, truth):
    event = rare.estimate(linear(dim), dim, stats.norm.isf(truth))
    agrees(event, truth, 0.03)


def test_no_component_is_a_sliver():
    """A few points, each many times, as resampling by uneven weights gives them."""
    model = fit_t_mixture(normal(40, 2).repeat(25, 1), generator(0, "slivers"))
    assert torch.linalg.svdvals(model.roots).min() > 0.2


def test_a_proposal_blind_to_seen_failures_promises_little():
    """Half of the failures beyond -2.5, half beyond 2.5; two proposals, one of which draws the second half only."""

    class Both(Shifted):
        def log_ratio(self, x):
            return torch.logaddexp(super().log_ratio(x), super().log_ratio(-x)) - log(2)

    x = normal(40_000, 4)
    seen = Round(x, x[:, 0].abs(), torch.ones(len(x)), torch.full((len(x),), log(len(x))), torch.zeros(len(x)))
    blind, both = (promise([seen], Defended(q, 4, 0.1), 2.5) for q in (Shifted(4, 2.5), Both(4, 2.5)))
    assert both > 50 * blind


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.9])
def test_k_of_a_generalised_pareto_sample_is_its_own(k: float) -> None:
    n, runs = 400, 40
    found = [fitted(np.sort(stats.genpareto.rvs(k, size=n, random_state=i))) for i in range(runs)]
    assert abs(np.mean(found) - k) < 5 * np.std(found) / sqrt(runs) + 0.02  # and a bias of the order 1 / n
    deviation = (1 + k) / sqrt(n)  # of the best estimate, by the law's information
    assert 0.6 * deviation < np.std(found) < 1.6 * deviation


def test_pareto_k_tells_weights_with_a_variance_from_others_in_any_unit() -> None:
    chance = np.random.default_rng(0).uniform(size=5000)
    assert pareto_k(chance) < 0 < 0.15 < pareto_k(chance**-0.3) < 0.5 < RELIED < pareto_k(chance**-1.2)
    assert pareto_k(1e-9 * chance**-0.3) == pytest.approx(pareto_k(chance**-0.3), rel=1e-6)
    assert pareto_k(np.ones(100)) == 0 and np.isnan(pareto_k(np.ones(20)))


def test_weights_that_few_points_carry_are_warned_of() -> None:
    """In 50 dimensions Gaussians fitted to a tenth of the points miss a plane, and the error that they tell is none."""
    event = rare.estimate(lambda x: x.sum(1) / sqrt(50), 50, 5.0, calls=10_000, method="cross-entropy")
    assert event.interval[1] < stats.norm.sf(5) or event.probability < 0.1 * stats.norm.sf(5)
    assert event.pareto_k > RELIED and any("Pareto k" in words for words in event.warnings)
    good = rare.estimate(lambda x: x.sum(1) / sqrt(8), 8, 4.0, calls=8_000)
    assert good.pareto_k < RELIED and not good.warnings
    assert np.isnan(rare.estimate(lambda x: x[:, 0], 2, 2.0, calls=2_000, method="subset").pareto_k)


def test_a_component_that_loses_its_few_points_is_given_up_whatever_their_number():
    """As few points as a component has numbers: with K components one may be left with none."""
    z, group = torch.randn(25, 12, dtype=torch.float64, generator=generator(0, "few")), torch.zeros(25).long()
    group[12:] = 2  # nobody is of group 1
    assert expectation_maximisation(z, group, 5) is None
    assert expectation_maximisation(z, torch.zeros(25).long(), 5) is not None
