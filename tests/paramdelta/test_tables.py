"""The range coder's tables: what a listed symbol stands for, and the integers of the choice."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.codecs import encoder_of, model_of

from paramdelta import codecs, kernels
from paramdelta.codecs import alphabets, frequencies, rans_model
from paramdelta.codecs.alphabets import SIGN, Alphabet
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.survey import Statistics
from paramdelta.errors import CorruptError

EVERY = np.arange(1 << 16, dtype=np.uint16)
# thirty-two elements, frozen: a graded prologue, and a frame with an escape and a plain symbol
PROLOGUE = base64.b64decode(
    "BwAAAAEHJAAAACi1L/0kF7kAAAEAgAEPECABAqsAAP+JAAEANABEAIkACI7+kii1L/0kF4UAAEgANwEACgAABwAC"
    "AKD0BYh+MQPK"
)
FRAME = base64.b64decode(
    "hVAL+gAAAAACAAAAAQAAAMQiLCABEgAAggDuHwEAAACCAO4fAQAAAIIA7h8BAAAAggDuHwEAAACCAO4fAQAAAIIA"
    "7h8BAAAAggDuHwEAAACCAO4fAQAAAIIA7h8BAAAA0mqG8L4BAACFqzQlFgcAAF67vkseDAAAVC92Yid2AgAAULMA"
    "AACAAH8dhvC+AQAAEbcAAA=="
)
FROZEN = [0] * 20 + [
    0x3880, 0xB8C0, 0x38A0, 0xB8E0, 0x3890, 0x38B0, 0xB8D0, 0x3700, 0xB711, 0x3881, 0xB880, 0x38C0,
]  # fmt: skip


@pytest.fixture(params=["compiled", "numpy"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking the decisions, however small the counts."""
    chosen = kernels._TABLES if request.param == "compiled" else None
    for module in ("frequencies", "survey"):
        monkeypatch.setattr(f"paramdelta.codecs.{module}.chooser", lambda elements: chosen)
    return str(request.param)


def leader(pattern: int, mantissa_bits: int) -> int:
    """By its definition, one bit after the other."""
    exponent, mantissa = divmod(pattern & 0x7FFF, 1 << mantissa_bits)
    bit = 1
    while mantissa and not mantissa & bit:
        bit *= 2
    return (exponent << mantissa_bits) + (bit if mantissa else 0)


@pytest.mark.parametrize(("dtype", "bits"), [("BF16", 7), ("F16", 10)])
def test_a_grade_has_one_exponent_and_as_many_zeros_at_the_end(dtype: str, bits: int) -> None:
    assert alphabets.leaders(EVERY, dtype).tolist() == [leader(p, bits) for p in range(1 << 16)]


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("alphabet", Alphabet)
def test_every_pattern_is_listed_once_and_gets_its_own_frequency_back(
    dtype: str, alphabet: Alphabet
) -> None:
    symbols = EVERY[EVERY != SIGN]  # −0 has no other sign
    folding = alphabets.folding(symbols, alphabet, dtype)
    ones = folding.of(np.ones((2, symbols.size), dtype=np.int64))
    assert (ones == alphabets.sizes(folding.listed, alphabet, dtype)).all()
    tables = np.arange(2 * (folding.listed.size + 1)).reshape(2, -1)
    every, spread = alphabets.unfolded(folding.listed, tables, alphabet, dtype)
    assert np.array_equal(every, symbols)
    assert (spread[:, 0] == tables[:, 0]).all()
    if alphabet == Alphabet.GRADED:
        owners = np.searchsorted(folding.listed, alphabets.leaders(symbols, dtype))
        assert np.array_equal(spread[:, 1:], tables[:, 1 + owners])
    listed, back = alphabets.listed(every, spread, alphabet, dtype)
    assert np.array_equal(listed, folding.listed)
    assert np.array_equal(back, tables)


COUNTS = st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 1 << 34))


@st.composite
def groups_of_counts(draw: st.DrawFn) -> np.ndarray:
    width = draw(st.integers(1, 40))
    rows = draw(st.lists(st.lists(COUNTS, min_size=width, max_size=width), min_size=1, max_size=9))
    return np.array(rows, dtype=np.int64)


@settings(max_examples=120, deadline=None)
@given(groups_of_counts(), st.data())
def test_the_compiled_choice_takes_the_same_decisions(
    groups: np.ndarray, data: st.DataObject
) -> None:
    size, bits = groups.shape[1], data.draw(st.sampled_from([12, 14]))
    exponents = data.draw(st.lists(st.integers(0, 10), min_size=size, max_size=size))
    weights = np.left_shift(1, np.array(exponents, dtype=np.int64))
    naming, overhead = data.draw(st.integers(0, 4000)), data.draw(st.integers(0, 30))
    found = []
    for chosen in (kernels._TABLES, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frequencies, "chooser", lambda elements, chosen=chosen: chosen)
            tables, need = frequencies.fitted(groups, weights, bits)
            ends = frequencies.merged(groups, overhead, lambda classes: naming * classes)
            found.append((tables.tolist(), need, ends, frequencies.entropies(groups)))
    assert found[0] == found[1]
    assert (tables[:, 0] + tables[:, 1:] @ weights == 1 << bits).all()
    assert (tables >= 0).all()
    assert ends[-1] == len(groups) - 1
    listed = tables[:-1] if len(tables) > len(groups) else tables
    escaping = ((listed[:, 1:] == 0) & (groups > 0)).any()
    assert not escaping or (len(tables) > len(groups) and (tables[:, 0] > 0).any())


def test_frequencies_that_must_shrink_by_less_than_any_weight_still_add_up() -> None:
    """Nothing light can shrink: something heavy does, and the light ones grow."""
    for counts in ([3, 1], [1, 1, 1], [5, 0, 1]):
        weights = np.array([512, 128, 2][: len(counts)], dtype=np.int64)
        for escape in (False, True):
            table = frequencies.normalise(np.array(counts), weights, 12, escape)
            assert table[0] + table[1:] @ weights == 1 << 12
            assert bool(table[0]) >= escape


def test_counts_are_collected_once(loops: str) -> None:
    elements = np.random.default_rng(0).integers(0, 1 << 16, 5000).astype(np.uint16)
    for _ in range(2):  # the second tensor gets the tables of the first
        stats = Statistics("BF16", 500)
        stats.update(elements)
        symbols, counts = stats.finish()
        assert np.array_equal(np.repeat(symbols, counts.sum(axis=0)), np.sort(elements))
        assert len(counts) == len(stats.bins)


@pytest.mark.parametrize("alphabet", Alphabet)
@pytest.mark.parametrize("bits", [12, 14])
def test_the_compiled_tables_of_a_decoder_are_the_same(
    alphabet: Alphabet, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    symbols = np.sort(random.choice(EVERY[: 1 << 15], 900, replace=False))
    model = model_of(symbols, random.integers(0, 9, (3, 900)) ** 3, (1, 2), bits, alphabet)
    found = []
    for chosen in (kernels._TABLES, None):
        monkeypatch.setattr(rans_model, "chooser", lambda elements, chosen=chosen: chosen)
        found.append(rans_model.decoding(model))
    assert np.array_equal(*found)
    assert np.count_nonzero(found[0][:, 3::4]) == model.tables[:, 0].sum()


def rarely_changed() -> np.ndarray:
    """A million elements of the difference that training in bfloat16 makes: most steps are smaller
    than half a last place and get lost."""
    random = np.random.default_rng(7)
    weights = (random.standard_normal(1 << 20) * 0.02).astype(np.float32)
    place = np.exp2(np.floor(np.log2(np.abs(weights))) - 7)
    step = (
        random.standard_normal(weights.size) * 2e-5 * np.exp(random.standard_normal(weights.size))
    )
    step *= random.random(weights.size) < 0.08
    moved = (np.rint(step / place) * place).astype(np.float32) + np.float32(0)
    found: np.ndarray = (moved.view(np.uint32) >> 16).astype(np.uint16)
    return found


def stored(encoder: codecs.Encoder, elements: np.ndarray) -> int:
    assert encoder.frame_elements == elements.size
    return len(encoder.prologue()) + 4 + len(encoder.frame(elements))


def test_few_changes_need_little_more_than_their_entropy() -> None:
    """Patterns of their own would cost more to list than they tell."""
    elements = rarely_changed()
    assert 0.97 < (elements == 0).mean() < 0.99
    stats = Statistics("BF16", 512)
    stats.update(elements)
    encoder = codecs.choose(stats, elements.size, "BF16", 512)
    assert encoder.prologue()[5] & ~rans_model.ESCAPES == Alphabet.GRADED
    counts = np.bincount(elements)
    shares = counts[counts > 0] / elements.size
    entropy = -(shares * np.log2(shares)).sum() * elements.size / 8
    assert stored(encoder, elements) < 1.025 * entropy
    symbols, spec = np.flatnonzero(counts).astype(np.uint16), TensorSpec("BF16", elements.size, 512)
    for bits in (12, 14):
        model = model_of(symbols, counts[counts > 0][None], (), bits, Alphabet.MIRRORED)
        other = encoder_of(model, spec, elements.size, 16)
        assert stored(encoder, elements) < 0.992 * stored(other, elements)


def test_a_graded_table_that_lists_what_stands_for_no_grade_is_refused() -> None:
    symbols = np.array([0, 0x3880, 0x3883, 0x3884], dtype=np.uint16)
    model = model_of(symbols, np.full((1, 4), 100), (), 12, Alphabet.GRADED)
    good = rans_model.to_bytes(model)
    assert np.array_equal(rans_model.from_bytes(good, 12, "BF16").tables, model.tables)
    mirrored = model_of(symbols, np.full((1, 4), 100), (), 12, Alphabet.MIRRORED)
    lie = bytearray(rans_model.to_bytes(mirrored))
    lie[5] = Alphabet.GRADED | (lie[5] & rans_model.ESCAPES)
    with pytest.raises(CorruptError, match="no grade"):
        rans_model.from_bytes(bytes(lie), 12, "BF16")


@pytest.mark.parametrize("kind", ["compiled", "numpy"])
def test_a_graded_stream_of_the_first_format_decodes_for_ever(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops = kernels._compiled_coder if kind == "compiled" else kernels._plain_coder
    monkeypatch.setattr("paramdelta.codecs.rans.coder", lambda elements: loops())
    params = {
        "bits": 12, "frame_elements": 32, "lanes": 16, "prologue_bytes": len(PROLOGUE), "unit": 32,
    }  # fmt: skip
    decoder = codecs.open_decoder("rans", params, PROLOGUE, "BF16", 32, 8)
    out = np.zeros(32, dtype=np.uint16)
    decoder.frame(FRAME, out)
    assert out.tolist() == FROZEN
