"""Memorisation: copiers of every degree are caught, honest samplers are not, and chance is told rightly."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics import Memorisation, authenticity, exact_copies, memorisation
from fabulate.metrics.copies import _deviation, _share
from fabulate.seeds import generator, permutation


def normal(*size: int, seed: int | str = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "copies"), dtype=torch.float64)


def measure(
    share: float,
    noise: float = 0.0,
    *,
    seed: int = 0,
    n: int = 500,
    train: int = 500,
    held_out: int = 500,
    dims: int = 8,
) -> Memorisation:
    """A sampler of which this share is copies of training images with noise, and the rest new draws."""
    real, other = normal(train, dims, seed=f"{seed} train"), normal(held_out, dims, seed=f"{seed} held out")
    samples, copies = normal(n, dims, seed=f"{seed} samples"), round(share * n)
    which = torch.randint(train, (copies,), generator=generator(seed, "which"))
    samples[:copies] = real[which] + noise * normal(copies, dims, seed=f"{seed} noise")
    return memorisation(samples, real, other)


@pytest.mark.parametrize(
    ("train", "held_out", "dims"),
    [(200, 200, 3), pytest.param(300, 100, 24, marks=pytest.mark.slow)],  # 24 dimensions: many hubs
)
def test_honest_samplers_raise_no_more_false_alarms_than_the_p_value_says(train, held_out, dims):
    """400 repeats at n = 200: false alarms at 5 %, and mean and spread of the share in its deviations, by five sigmas.

    The spread also proves that the test is not too shy.
    """
    found = [measure(0, seed=i, n=200, train=train, held_out=held_out, dims=dims) for i in range(400)]
    assert sum(each.p_value < 0.05 for each in found) / 400 < 0.05 + 5 * sqrt(0.05 * 0.95 / 400)
    z = []
    for each in found:
        nearest = (each.nearest_train, each.train_distances, each.nearest_held_out, each.held_out_distances)
        share, deviation = _share(*nearest, train, held_out)
        assert share == each.share.value
        z.append((share - each.by_numbers) / deviation)
    assert abs(torch.tensor(z).mean()) < 5 / sqrt(400)
    assert abs(torch.tensor(z).std() - 1) < 5 / sqrt(2 * 400)


def test_new_images_by_the_training_writers_are_no_copies_where_others_wrote_the_held_out_ones():
    """20 writers each, 300 images of each set, 60 repeats: shares are far above those by numbers, and honest."""
    found = []
    for i in range(60):
        writers = 3 * normal(40, 6, seed=f"{i} writers")
        mine, others = (torch.randint(20, (300,), generator=generator(i, name)) for name in ("mine", "others"))
        new = torch.randint(20, (300,), generator=generator(i, "new"))
        train, held_out, samples = (
            writers[who] + normal(300, 6, seed=f"{i} {name}")
            for who, name in ((mine, "train"), (20 + others, "held out"), (new, "samples"))
        )
        found.append(memorisation(samples, train, held_out))
    assert all(each.share.low > each.by_numbers and each.control.low > each.by_numbers for each in found)
    assert sum(each.p_value < 0.05 for each in found) / 60 < 0.05 + 5 * sqrt(0.05 * 0.95 / 60)
    assert abs(sum(each.share.value - each.control.value for each in found) / 60) < 0.02


def test_training_images_in_equal_pairs_leave_nothing_to_prove():
    train = normal(50, 4).repeat(2, 1)
    found = memorisation(train[:20], train, normal(50, 4, seed=1))
    assert found.control.value == found.expected == 1
    assert found.p_value >= 0.5 and found.copied.value == 0 and found.copied.low != found.copied.low


def test_the_deviation_is_that_of_labels_dealt_anew():
    """5000 deals know a deviation to 1 %; the counts have a hub."""
    counts = torch.tensor([40, 0, 3, 1, 1, 0, 7, 2, 0, 5])
    dealt = torch.tensor([float(counts[permutation(10, i, "labels")[:6]].sum()) for i in range(5000)])
    assert abs(dealt.std() / _deviation(counts, 6) - 1) < 5 / sqrt(2 * 5000)


def test_a_memorising_sampler_is_caught():
    found = measure(1.0)
    assert found.p_value < 1e-6 and found.share.value == 1 and found.copied.value == 1
    assert found.authenticity.value == 0 and (found.train_distances == 0).all() and (found.held_out_distances > 0).all()


@pytest.mark.parametrize("noise", [0.0, 0.2])  # two rows here are 2 apart at the nearest, in the mean
def test_one_that_copies_a_fifth_is_caught_and_measured(noise):
    """n = 500 against 500 and 500: `copied` has a standard error near 0.05, so the power is about 95 %.

    Of 60 repeats 57 should be caught and 57 intervals should hold 0.2; five binomial sigmas are 8. Where the control
    is above the share by numbers by chance it counts: by 0.4 of its error of 0.05, that much less is found on average.
    """
    found = [measure(0.2, noise, seed=i) for i in range(60)]
    assert sum(each.p_value < 0.05 for each in found) > 48
    assert sum(each.copied.low < 0.2 < each.copied.high for each in found) > 48
    values = torch.tensor([each.copied.value for each in found])
    assert abs(values.mean() - (0.2 - 0.4 * 0.05)) < 5 * values.std() / sqrt(60)
    width = sum(each.copied.high - each.copied.low for each in found) / 60 / (2 * 1.96)
    assert 0.6 < width / float(values.std()) < 1.6


def test_the_share_expected_is_that_of_the_sets_or_of_the_control():
    found = measure(0, n=2000, train=900, held_out=300)
    assert found.by_numbers == 0.75 and found.expected == max(0.75, found.control.value)
    assert found.share.low < 0.75 < found.share.high and found.control.low < 0.75 < found.control.high
    assert found.copied.value == pytest.approx((found.share.value - found.expected) / (1 - found.expected))
    assert found.copied.low < 0 < found.copied.high


def test_honest_samples_are_as_authentic_as_held_out_images_and_copies_are_less_so():
    """500 of each; five standard errors of a difference of shares."""
    train, held_out = normal(500, 8), normal(500, 8, seed=1)
    honest = authenticity(held_out, train).value
    error = 5 * sqrt(2 * 0.25 / 500)
    assert abs(authenticity(normal(500, 8, seed=2), train).value - honest) < error
    assert authenticity(train + 0.2 * normal(500, 8, seed=3), train).value < 0.05 < honest - error


def test_authenticity_is_its_definition():
    samples, train = normal(30, 2), normal(40, 2, seed=1)
    to_train, apart = torch.cdist(samples, train), torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1)
    expected = (to_train.amin(1) > apart[to_train.argmin(1)]).double().mean()
    assert authenticity(samples, train).value == expected


def test_images_in_both_sets_are_no_evidence():
    shared = normal(100, 3)
    found = memorisation(shared, shared, shared)
    assert found.share.value == 0 and (found.train_distances == found.held_out_distances).all()


def test_one_training_image_again_and_again_is_little_evidence_but_not_authentic():
    train = normal(100, 3)
    found = memorisation(train[:1].repeat(300, 1), train, normal(100, 3, seed=1))
    assert found.share.value == 1 and found.p_value > 0.05
    assert found.authenticity.value == 0


def test_each_real_image_once_is_what_was_expected():
    train, held_out = normal(30, 3), normal(10, 3, seed=1)
    found = memorisation(torch.cat([train, held_out]), train, held_out)
    assert found.share.value == found.by_numbers and found.p_value >= 0.5


def test_exact_copies_are_found_and_one_gray_level_off_is_not():
    train = torch.randint(256, (50, 3, 4, 4), generator=generator("exact"), dtype=torch.uint8)
    samples = train[[7, 7, 0, 49]].clone()
    samples[2, 1, 3, 3] ^= 1
    assert exact_copies(samples, train).tolist() == [True, True, False, True]
    assert exact_copies(samples.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), train).tolist()[0]
    for wrong in (samples.float(), samples[:, :1]):
        with pytest.raises(DataError, match="uint8 images of one shape"):
            exact_copies(wrong, train)


def test_one_training_image_is_refused():
    with pytest.raises(DataError, match="train: 1 image is too few"):
        memorisation(normal(3, 2), normal(1, 2), normal(3, 2))


def test_a_blob_drawn_again_and_again_is_no_evidence_of_copies_though_a_training_image_is_always_nearest():
    """A collapsed model: 300 samples that are nearly one image; by chance its nearest real image is one of training."""
    train, held_out = normal(500, 8, seed="train"), normal(500, 8, seed="held out")
    blob = train[:1] + 0.3 * normal(1, 8, seed="blob")
    found = memorisation(blob + 1e-3 * normal(300, 8, seed="samples"), train, held_out)
    assert found.share.value == 1 and found.p_value > 0.1
    assert found.copied.low < 0 < 1 < found.copied.high
