"""Randomness is a function of its address: stable, distinct, and independent of torch's global generator."""

from itertools import combinations

import pytest
import torch

from fabulate.seeds import generator, permutation, seed_at, seeded

ADDRESSES = [(), (0,), (1,), ("0",), (0, 1), (1, 0), ("0", 1), (1, 23), (12, 3), ("a", "b"), ("ab",), ("a, b",)]


def draw(chance: torch.Generator | None = None) -> torch.Tensor:
    return torch.rand(5, generator=chance)


def test_seeds_are_the_same_on_every_machine_and_in_every_version():
    assert seed_at(0, "order", 3) == 8244215730568551301
    assert permutation(8, 0, "order", 0).tolist() == [1, 2, 4, 3, 0, 7, 5, 6]


def test_different_addresses_have_different_seeds_of_63_bits():
    seeds = [seed_at(*address) for address in ADDRESSES]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert all(first != second for first, second in combinations(seeds, 2))


def test_every_bit_of_a_seed_but_the_sign_is_used():
    bits = [sum(seed_at(i) >> bit & 1 for i in range(1000)) for bit in range(63)]
    # n = 1000 fair coins for each bit: 500 with a standard error of sqrt(250) = 15.8, of which five.
    assert all(abs(count - 500) < 5 * 15.8 for count in bits)


@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_a_permutation_has_every_number_once_and_its_address_decides_the_order(n):
    order = permutation(n, 0, "order", 0)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, permutation(n, 0, "order", 0))
    assert n < 100 or not torch.equal(order, permutation(n, 0, "order", 1))


def test_a_generator_neither_reads_nor_moves_the_global_one():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    numbers = draw(generator(0, "noise"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(generator(0, "noise")), numbers)
    assert not torch.equal(draw(generator(1, "noise")), numbers)


def test_a_seeded_block_starts_at_its_address_and_puts_the_global_generator_back():
    torch.manual_seed(1)
    expected = draw()
    torch.manual_seed(1)
    with seeded(0, "noise"):
        first = draw()
    assert torch.equal(draw(), expected)
    with seeded(0, "noise"):
        assert torch.equal(draw(), first)
        with seeded(0, "inner"):
            inner = draw()
        second = draw()
    with seeded(0, "noise"):
        assert torch.equal(torch.cat([draw(), draw()]), torch.cat([first, second]))  # as if there were no inner block
    assert not torch.equal(inner, second)


def test_a_seeded_block_puts_the_global_generator_back_after_an_error():
    before = torch.get_rng_state()

    def fail():
        with seeded(0):
            raise ZeroDivisionError(draw())

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 32])
def test_a_product_does_not_round_by_where_its_factors_lie(rows):
    x, w = (torch.randn(*size, generator=generator(0)) for size in ((rows, 5), (64, 5)))
    room = torch.empty(rows * 5 + 16)
    for offset in range(16):
        placed = room[offset : offset + rows * 5].view(rows, 5).copy_(x)
        assert torch.equal(torch.nn.functional.linear(placed, w), torch.nn.functional.linear(x, w))
