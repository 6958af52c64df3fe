"""What all metrics refuse, intervals, and the metrics of images, classes, codes and classifiers."""

from math import exp, sqrt

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from fabulate import metrics
from fabulate.errors import DataError
from fabulate.metrics import Estimate
from fabulate.seeds import generator
from fabulate.types import to_uint8, unit


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "metrics"), dtype=torch.float64)


def pictures(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=generator(seed, "pictures"), dtype=torch.float64) * 2 - 1


PAIRS = {
    metrics.frechet_distance: ("a", "b"),
    metrics.frechet_interval: ("a", "b"),
    metrics.kernel_distance: ("a", "b"),
    metrics.monge_distance: ("a", "b"),
    metrics.precision_recall: ("real", "fake"),
    metrics.density_coverage: ("real", "fake"),
    metrics.fidelity: ("real", "fake"),
    metrics.memorisation: ("samples", "train", "held_out"),
    metrics.authenticity: ("samples", "train"),
    metrics.active_units: ("means",),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("compute", "names"), PAIRS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_numbers_that_are_not_finite_are_refused_by_place(compute, names, value):
    for name in names:
        sets = [normal(12, 4, seed=i) for i in range(len(names))]
        compute(*sets)
        sets[names.index(name)][7:, 2] = value
        with pytest.raises(
            DataError, match=rf"^{name}: 5 of 48 numbers are not finite, the first in row 7, column 2 \("
        ):
            compute(*sets)


@pytest.mark.parametrize(("compute", "names"), PAIRS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_features_of_unequal_length_no_rows_and_other_shapes_are_refused(compute, names):
    sets = [normal(12, 4, seed=i) for i in range(len(names))]
    if len(names) > 1:
        with pytest.raises(DataError, match=r"has [34] features a row and .* has [34]"):
            compute(sets[0], normal(12, 3), *sets[2:])
    with pytest.raises(DataError, match=f"{names[0]}: 0 rows of features are too few"):
        compute(sets[0][:0], *sets[1:])
    with pytest.raises(DataError, match=rf"{names[0]}: features must be rows .* not of shape \(12, 2, 2\)"):
        compute(sets[0].reshape(12, 2, 2), *sets[1:])


def test_a_sum_that_overflows_is_no_reason_to_refuse():
    huge = torch.full((4, 2), 1e308, dtype=torch.float64)
    assert torch.equal(metrics.checked(huge=huge)[0], huge)


def test_numbers_of_torch_half_on_which_metrics_run_in_float64():
    a, b = normal(20, 3).half(), normal(20, 3, seed=1).half()
    assert metrics.frechet_distance(a, b) == metrics.frechet_distance(a.double(), b.double())


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_of_a_mean_holds_it_in_95_of_100_repeats(n):
    """2000 repeats, five binomial sigmas."""
    values = normal(2000, n) + 3
    found = [Estimate.of_mean(row) for row in values]
    held = sum(estimate.low < 3 < estimate.high for estimate in found) / 2000
    assert abs(held - 0.95) < 5 * sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(("n", "share"), [(50, 0.5), (200, 0.03), (1000, 0.9)])
def test_the_interval_of_a_share_holds_it_in_about_95_of_100_repeats(n, share):
    """By the binomial law itself; Wilson's interval is right on average over shares and off by 2 % at single ones."""
    law = torch.distributions.Binomial(n, torch.tensor(share).double())
    held = 0.0
    for count in range(n + 1):
        estimate = Estimate.of_share(count, n)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        if estimate.low < share < estimate.high:
            held += float(law.log_prob(torch.tensor(float(count)).double()).exp())
    assert abs(held - 0.95) < 0.02


def test_one_value_has_no_interval():
    assert str(Estimate.of_mean(torch.tensor([2.0]))) == "2"


@pytest.mark.parametrize("size", [(4, 1, 28, 28), (3, 3, 16, 11)])
def test_image_metrics_are_those_of_torchmetrics(size):
    x = pictures(*size)
    y = (x + 0.3 * normal(*size, seed=1)).clamp(-1, 1)
    _, places = structural_similarity_index_measure(unit(x), unit(y), data_range=1.0, return_full_image=True)
    torch.testing.assert_close(metrics.ssim(x, y), places[..., 5:-5, 5:-5].mean((1, 2, 3)))  # without mirrored borders
    each = [peak_signal_noise_ratio(unit(a), unit(b), data_range=1.0) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(metrics.psnr(x, y), torch.stack(each))
    torch.testing.assert_close(metrics.mse(x, y), ((x - y) / 2).square().flatten(1).mean(1))


@pytest.mark.parametrize("side", [1, 2, 3, 8, 12])
def test_ssim_of_flat_images_compares_their_light_at_any_size(side):
    a, b = torch.full((1, 2, side, side + 1), 0.2), torch.full((1, 2, side, side + 1), 0.6)
    expected = (2 * 0.6 * 0.8 + 1e-4) / (0.6**2 + 0.8**2 + 1e-4)  # pixels 0.6 and 0.8 of [0, 1]
    assert float(metrics.ssim(a, b)) == pytest.approx(expected, abs=1e-6)


def test_equal_images_are_as_close_as_can_be_and_bytes_count_like_floats():
    x, y = to_uint8(pictures(3, 1, 9, 8)), to_uint8(pictures(3, 1, 9, 8, seed=1))
    assert (metrics.ssim(x, x) == 1).all() and metrics.psnr(x, x).isinf().all() and (metrics.mse(x, x) == 0).all()
    for metric in (metrics.mse, metrics.psnr, metrics.ssim):
        torch.testing.assert_close(
            metric(x, y), metric(x.double() / 127.5 - 1, y.double() / 127.5 - 1), rtol=1e-5, atol=0
        )
        torch.testing.assert_close(metric(x, y), metric(y, x))
        with pytest.raises(DataError, match=r"\(3, 1, 9, 8\) and \(2, 1, 9, 8\)"):
            metric(x, y[:2])


def test_the_entropy_of_classes_counts_them():
    assert metrics.effective_classes(torch.tensor([0.25, 0.0, 0.25, 0.25, 0.25])) == pytest.approx(4)
    uneven = torch.tensor([0.7, 0.1, 0.1, 0.1])
    entropy = float(torch.distributions.Categorical(uneven.double()).entropy())
    assert metrics.effective_classes(uneven) == pytest.approx(exp(entropy))
    assert metrics.effective_classes(torch.tensor([0.0, 1.0])) == 1


def test_a_class_is_present_from_a_tenth_of_its_real_share_on():
    real = torch.tensor([0.5, 0.3, 0.2, 0.0])
    assert metrics.modes(real, real) == 3
    assert metrics.modes(torch.tensor([0.948, 0.031, 0.021, 0.0]), real) == 3
    assert metrics.modes(torch.tensor([0.95, 0.031, 0.019, 0.0]), real) == 2
    assert metrics.modes(torch.tensor([0.0, 0.0, 0.0, 1.0]), real) == 0


def test_active_units_are_those_whose_mean_varies():
    means = normal(500, 20) * torch.logspace(-3, 0, 20)
    count = metrics.active_units(means)
    assert 0 < count < 20
    assert count == int((means.var(0, correction=0) > 0.01).sum())
    assert metrics.active_units(means[:1]) == 0


def test_straight_even_paths_are_the_smoothest_and_turns_and_jumps_are_measured():
    ends = normal(2, 5, 7)
    t = torch.linspace(0, 1, 9).double()[None, :, None]
    straight = ends[0][:, None] * (1 - t) + ends[1][:, None] * t
    found = metrics.smoothness(straight)
    assert found.detour == pytest.approx((1, 1, 1)) and found.largest_step == pytest.approx((1, 1, 1))
    jumping = ends[0][:, None] * (t < 0.5) + ends[1][:, None] * (t >= 0.5)
    assert metrics.smoothness(jumping).largest_step.value == pytest.approx(8)  # all in one of 8 steps
    assert metrics.smoothness(jumping).detour.value == pytest.approx(1)
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[None]
    assert metrics.smoothness(corner).detour.value == pytest.approx(sqrt(2))
    noisy = metrics.smoothness(straight + 0.1 * normal(5, 9, 7, seed=1))
    assert noisy.detour.value > 1 and noisy.largest_step.value > 1
    scaled = metrics.smoothness(1000 * straight + 3)
    assert scaled.detour.value == pytest.approx(1) and scaled.largest_step.value == pytest.approx(1)


def test_paths_that_lead_nowhere_or_are_too_short_are_refused():
    paths = normal(3, 5, 2)
    with pytest.raises(DataError, match=r"not of shape \(3, 2, 2\)"):
        metrics.smoothness(paths[:, :2])
    with pytest.raises(DataError, match="path 1 begins and ends with equal features"):
        metrics.smoothness(torch.cat([paths[:1], torch.zeros(1, 5, 2), paths[2:]]))
    paths[2, 1, 0] = torch.nan
    with pytest.raises(DataError, match="paths: 1 of 30 numbers is not finite, the first in row 11, column 0"):
        metrics.smoothness(paths)


def test_recalls_are_those_of_scikit_learn():
    truth = torch.randint(4, (200,), generator=generator("truth"))
    predicted = torch.where(normal(200) > 0, truth, torch.randint(4, (200,), generator=generator("predicted")))
    found = [share.value for share in metrics.recalls(truth, predicted, 4)]
    assert found == pytest.approx(recall_score(truth, predicted, average=None).tolist())
    balanced = metrics.balanced_accuracy(truth, predicted, 4)
    assert balanced.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert metrics.balanced_accuracy(truth, predicted, 6).value == balanced.value  # two more classes without images


def test_the_balanced_accuracys_interval_holds_it_in_about_95_of_100_repeats():
    """1000 repeats; five binomial sigmas below, and a rare class's softened share may be too careful above."""
    truth = torch.tensor([0] * 100 + [1] * 30 + [2] * 10)
    right = torch.rand(1000, 140, generator=generator("right")) < torch.tensor([0.9, 0.6, 0.7])[truth]
    found = [metrics.balanced_accuracy(truth, torch.where(row, truth, (truth + 1) % 3), 3) for row in right]
    held = sum(each.low < (0.9 + 0.6 + 0.7) / 3 < each.high for each in found) / 1000
    assert held > 0.95 - 5 * sqrt(0.95 * 0.05 / 1000)


def test_classes_that_do_not_exist_and_lists_that_do_not_fit_are_refused():
    one = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(DataError, match=r"two lists \(N,\), not \(3,\) and \(2,\)"):
        metrics.recalls(one, one[:2], 2)
    with pytest.raises(DataError, match="numbered 0 to 1, but 5 to 5 came"):
        metrics.recalls(one + 5, one, 2)
    with pytest.raises(DataError, match="no images"):
        metrics.balanced_accuracy(one[:0], one[:0], 2)
