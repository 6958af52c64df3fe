"""Counting: an interpolated Kneser-Ney n-gram, the anchor of every report on sequences and an expert beside a network.

How likely is w after the m symbols c? As often as it came there, less a discount D, and what the discounts leave goes
to the shorter context c' that lacks the farthest symbol,

    p_m(w | c) = max(n(c w) - D, 0) / n(c) + gamma(c) p_(m-1)(w | c'),        p_(-1) = 1 / K,

where n counts occurrences for the longest contexts, and below, in how many *different* contexts one symbol longer c w
came: after "San" Francisco is frequent, and likely nowhere else. D depends on n being 1, 2 or more and comes from how
many have been counted once to four times (Chen, Goodman, "An empirical study of smoothing techniques for language
modeling", 1999, https://doi.org/10.1006/csla.1999.0128, modified Kneser-Ney). Every p_m is a normalised distribution.

A context that reaches the beginning of its sequence is its own longest one, so it counts occurrences.

Counts have seen the training sequences, and would tell a network beside them that they are always right. So a training
sequence is scored as if it had not been counted (`without=True`): what it added is taken from each n first. Taking out
the symbol in question alone is not enough, for tunes repeat themselves.

Contexts are numbered: each is the context one shorter, by its number, and one symbol more. Numbers are found in sorted
arrays, so nothing is hashed and counts are exact.

Legend: B batch, T places, K symbols, N the order (contexts of up to N - 1 symbols), m symbols of a context.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEFT = 0.05  # the least that is discounted
FEATURES = 2  # of each context: how often, and with how many different symbols it came


class Counts(nn.Module):
    """p(w | the N - 1 symbols before it) by counting; uniform until something is counted.

    >>> counts = Counts(2, order=2)
    >>> counts.fit([torch.tensor([[0, 1, 0, 1, 1]])])
    >>> p = counts.distribution(torch.tensor([[0, 1], [1, 0]]))[0]  # of both symbols after 0 1, and after 1 0
    >>> bool(p[0, 0] > p[1, 0]), p.sum(1).tolist()
    (True, [1.0, 1.0])
    """

    discounts: Tensor

    def __init__(self, symbols: int, order: int) -> None:
        super().__init__()
        self.symbols, self.order = symbols, order
        for m in range(order):
            self.register_buffer(f"contexts{m}", torch.zeros(0, dtype=torch.int64))  # sorted: parent, symbol before it
            self.register_buffer(f"grams{m}", torch.zeros(0, dtype=torch.int64))  # sorted: context, symbol after it
            self.register_buffer(f"counts{m}", torch.zeros(0, dtype=torch.int32))  # n of each gram
            self.register_buffer(f"types{m}", torch.zeros(0, 4, dtype=torch.int32))  # of each context: n, and how many
            # grams of it have been counted once, twice, more often
        self.register_buffer("discounts", torch.zeros(order, 4, dtype=torch.float64))  # of n = 0, 1, 2, more
        self.register_load_state_dict_pre_hook(resize)  # type: ignore[no-untyped-call]

    @property
    def features(self) -> int:
        """How many numbers tell of the contexts at a place."""
        return FEATURES * self.order

    # Fitting

    @torch.no_grad()
    def fit(self, sequences: Sequence[Tensor]) -> None:
        """Count sequences: symbols (B, T) each, -1 from behind the end on."""
        before = [self.contexts_of(x) for x in sequences]
        places = [x >= 0 for x in sequences]
        w = torch.cat([x[is_in] for x, is_in in zip(sequences, places, strict=True)]).long()
        past = torch.cat([c[is_in] for c, is_in in zip(before, places, strict=True)])  # (P, N - 1), nearest first
        device = self.discounts.device
        number = torch.zeros_like(w)  # of the context of each place, -1 where it would reach beyond the beginning
        raw: list[tuple[Tensor, Tensor]] = []  # grams and how often each occurred
        starts: list[Tensor] = []  # whether a context begins with the beginning
        for m in range(self.order):
            keys = torch.zeros(1, dtype=torch.int64)
            if m:
                symbol = past[:, m - 1]
                valid = (number >= 0) & (symbol >= 0)
                keys, inverse = torch.unique(number[valid] * (self.symbols + 1) + symbol[valid], return_inverse=True)
                number = torch.full_like(number, -1)
                number[valid] = inverse
            starts.append(keys % (self.symbols + 1) == self.symbols if m else torch.zeros(1, dtype=torch.bool))
            known = number >= 0
            raw.append(torch.unique(number[known] * self.symbols + w[known], return_counts=True))
            setattr(self, f"contexts{m}", keys.to(device))
        for m, (grams, occurred) in enumerate(raw):
            n = occurred
            if m + 1 < self.order:  # how many grams one symbol longer end with each
                longer = raw[m + 1][0]
                parent = getattr(self, f"contexts{m + 1}").cpu()[longer // self.symbols] // (self.symbols + 1)
                ends = torch.searchsorted(grams, parent * self.symbols + longer % self.symbols)
                n = torch.where(starts[m][grams // self.symbols], occurred, torch.bincount(ends, minlength=len(grams)))
            context = grams // self.symbols
            types = torch.zeros(len(starts[m]), 4, dtype=torch.int64)
            types[:, 0].index_add_(0, context, n)
            for column in (1, 2, 3):
                types[:, column].index_add_(0, context, ((n == column) | ((n > 3) & (column == 3))).long())
            self.discounts[m] = discounts(n)
            setattr(self, f"grams{m}", grams.to(device))
            setattr(self, f"counts{m}", n.int().to(device))
            setattr(self, f"types{m}", types.int().to(device))

    def contexts_of(self, x: Tensor) -> Tensor:
        """The N - 1 symbols before each place of sequences (B, T), nearest first: (B, T, N - 1).

        The place before the first holds K, those before that -1.
        """
        steps = range(1, self.order)
        padded = F.pad(F.pad(x, (1, 0), value=self.symbols), (self.order, 0), value=-1)
        found = [padded[:, self.order + 1 - step : self.order + 1 - step + x.shape[1]] for step in steps]
        return torch.stack(found, 2) if found else x.new_zeros(*x.shape, 0)

    # Asking

    @torch.no_grad()
    def of_symbols(self, x: Tensor, without: bool = False) -> tuple[Tensor, Tensor]:
        """log p of each symbol of sequences (B, T), as (B, T) in nats, and the features of its contexts (B, T, 2 N).

        `without`: as if its own sequence had not been counted. What is below 0, behind an end, may get any number.
        """
        past = self.contexts_of(x).flatten(0, 1)
        p, features = self.interpolated(past, x.clamp_min(0).flatten()[:, None], x if without else None)
        return p[:, 0].log().view(x.shape), features.view(*x.shape, -1)

    @torch.no_grad()
    def distribution(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p of all symbols behind sequences (B, T), as (B, K), and the features of their contexts (B, 2 N)."""
        past = self.contexts_of(F.pad(x, (0, 1)))[:, -1]
        every = torch.arange(self.symbols, device=x.device).expand(len(x), -1)
        return self.interpolated(past, every)

    def interpolated(self, past: Tensor, w: Tensor, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """p of symbols w (P, S) in contexts (P, N - 1): (P, S) in float64, and features (P, 2 N).

        `without`: the sequences (B, T) whose places these are, if they are to be taken out of the counts.
        """
        numbers, grams, stats, counts = [torch.zeros_like(w[:, 0])], [], [], []
        for m in range(self.order):
            if m:
                symbol = past[:, m - 1]
                keys = numbers[-1] * (self.symbols + 1) + symbol
                numbers.append(find(getattr(self, f"contexts{m}"), keys, (numbers[-1] >= 0) & (symbol >= 0)))
            known = numbers[-1] >= 0
            types, own = getattr(self, f"types{m}"), numbers[-1].clamp_min(0)
            stats.append(types[own].double() * known[:, None] if len(types) else past.new_zeros(len(w), 4).double())
            here = find(getattr(self, f"grams{m}"), own[:, None] * self.symbols + w, known[:, None].expand_as(w))
            grams.append(here)
            of = getattr(self, f"counts{m}")
            counts.append(torch.where(here >= 0, of[here.clamp_min(0)], 0).double() if len(of) else 0.0 * w.double())
        if without is not None:
            rows = torch.arange(len(without), device=w.device)[:, None].expand_as(without).flatten()
            places = (without.flatten() >= 0).nonzero()[:, 0]
            begins = [torch.zeros_like(rows, dtype=torch.bool), *(past == self.symbols).unbind(1)]
            take_out(rows, places, numbers, grams, begins, stats, counts)
        p = torch.full(w.shape, 1 / self.symbols, dtype=torch.float64, device=w.device)
        features = []
        for m, (types, n) in enumerate(zip(stats, counts, strict=True)):
            discount = self.discounts[m]
            total = types[:, :1]
            left = (types[:, 1:] * discount[1:]).sum(1, keepdim=True)
            kept = (n - discount[n.long().clamp(0, 3)]).clamp_min(0)
            p = torch.where(total > 0, (kept + left * p) / total.clamp_min(1), p)
            features += [torch.log1p(total), torch.log1p(types[:, 1:].sum(1, keepdim=True))]
        return p, torch.cat(features, 1).to(torch.get_default_dtype())


def take_out(
    rows: Tensor,
    places: Tensor,
    contexts: list[Tensor],
    grams: list[Tensor],
    begins: list[Tensor],
    stats: list[Tensor],
    counts: list[Tensor],
) -> None:
    """Change what was counted, `stats` (P, 4) and `counts` (P, 1) of each m, to what it is without a place's own row.

    `places`: those of P that are within a sequence. `contexts`, `grams`: their numbers by m, (P,) and (P, 1); `begins`:
    whether contexts of m begin at the beginning. The longest contexts lose the row's occurrences; shorter ones, which
    count longer grams, those of these that are no more.
    """
    longer: tuple[Tensor, Tensor] | None = None  # of the places, the pair of row and gram, and which pairs are no more
    for m in reversed(range(len(stats))):
        known = places[grams[m][places, 0] >= 0]
        if not len(known):  # of sequences that were not counted
            longer = torch.full_like(rows, -1), torch.zeros(0, dtype=torch.bool, device=rows.device)
            continue
        gram, context = grams[m][known, 0], contexts[m][known]
        pairs, pair = torch.unique(rows[known] * (gram.max() + 1) + gram, return_inverse=True)
        homes, home = torch.unique(rows[known] * (context.max() + 1) + context, return_inverse=True)
        first = torch.empty_like(pairs).scatter_(0, pair, torch.arange(len(pair), device=pair.device))  # any place
        occurred = torch.bincount(pair, minlength=len(pairs))
        lost = torch.zeros_like(occurred)
        if longer is not None:
            of, gone = longer
            at = of[known]
            ends = torch.full_like(gone, -1, dtype=torch.int64)
            ends[at[at >= 0]] = pair[at >= 0]
            lost += torch.bincount(ends[gone & (ends >= 0)], minlength=len(lost))
        raw = begins[m][known][first] if longer is not None else torch.ones_like(lost, dtype=torch.bool)
        old = counts[m][known, 0][first].long()
        new = (old - torch.where(raw, occurred, lost)).clamp_min(0)
        change = torch.zeros(len(homes), 4, dtype=torch.float64, device=pair.device)
        here = home[first]
        change[:, 0].index_add_(0, here, (new - old).double())
        for column in (1, 2, 3):
            change[:, column].index_add_(0, here, bucket(new, column) - bucket(old, column))
        stats[m], counts[m] = stats[m].clone(), counts[m].clone()
        stats[m][known] += change[home]
        counts[m][known, 0] = new[pair].double()
        of = torch.full_like(rows, -1)
        of[known] = pair
        longer = of, new == 0


def bucket(n: Tensor, column: int) -> Tensor:
    """1 where n is the column's: 1, 2, or 3 and more."""
    return (n.clamp_max(3) == column).double()


def discounts(n: Tensor) -> Tensor:
    """What is taken from counts of 0, 1, 2 and more (4,), by how many of n are 1 to 4."""
    times = [max(1, int((n == i).sum())) for i in (1, 2, 3, 4)]
    y = times[0] / (times[0] + 2 * times[1])
    found = [0.0] + [i - (i + 1) * y * times[i] / times[i - 1] for i in (1, 2, 3)]
    # Something is always left for what was never met, or it would cost infinitely much.
    return torch.tensor([min(max(d, LEFT), i - LEFT) if i else 0.0 for i, d in enumerate(found)], dtype=torch.float64)


def find(sorted_keys: Tensor, keys: Tensor, asked: Tensor) -> Tensor:
    """Where each key stands in a sorted array, -1 for what does not or is not asked."""
    if not len(sorted_keys):
        return torch.full_like(keys, -1)
    place = torch.searchsorted(sorted_keys, keys).clamp_max(len(sorted_keys) - 1)
    return torch.where(asked & (sorted_keys[place] == keys), place, -1)


def resize(module: Counts, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Make room for what is loaded: the data said how long each array is."""
    for name, buffer in [*module.named_buffers()]:
        if prefix + name in state and state[prefix + name].shape != buffer.shape:
            setattr(module, name, buffer.new_empty(state[prefix + name].shape))
