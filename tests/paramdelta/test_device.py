"""The device path gives the processor's bits: kernels, decoder, and blocks in flight.

Where there is no GPU the same kernels run in Triton's interpreter, element for element.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.checkpoints import SPECIAL_BITS
from support.codecs import encoder_of, model_of
from support.devices import DEVICE

from paramdelta import delta
from paramdelta.codecs import rans_numpy
from paramdelta.codecs.alphabets import Alphabet
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.rans import RansDecoder
from paramdelta.codecs.survey import Statistics
from paramdelta.delta import Term
from paramdelta.device.decoder import DeviceRans
from paramdelta.device.lowrank import DeviceLowRank
from paramdelta.device.rule import kernels_for
from paramdelta.device.staging import Block, Lanes
from paramdelta.errors import CorruptError
from paramdelta.lowrank import LowRank

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NaNs


def deltas(rows: int, columns: int, seed: int) -> np.ndarray:
    """bfloat16 bits as of a delta: rows of two scales, zeros, some unique values."""
    random = np.random.default_rng(seed)
    scale = np.exp2(random.choice([0, 6], size=(rows, 1)))
    values = np.rint(random.standard_normal((rows, columns)) * 3) * scale * 2.0**-14
    unique = random.random(values.shape) < 0.006
    values[unique] = random.standard_normal(int(unique.sum()))
    values[values == 0] = 0  # −0 added to +0 is skipped
    single = values.astype(np.float32).view(np.uint32)
    return (single >> 16).astype(np.uint16).reshape(-1)


def encoded(
    bits: np.ndarray, columns: int, frame: int, lanes: int = 32, escaping: int = 0
) -> tuple[RansDecoder, list[bytes]]:
    """*bits* as frames of about *frame* elements, and their decoder.

    escaping: symbols, spread over all, that are counted as if they were rare or not there.
    """
    spec = TensorSpec("BF16", bits.size, columns)
    counted = Statistics("BF16", columns)
    counted.update(bits)
    symbols, counts = counted.finish()
    half = max(1, len(counts) // 2)
    groups = np.stack([p.sum(axis=0) for p in (counts[:half], counts[half:]) if p.size])
    edges = (counted.bins[half - 1],) if len(groups) > 1 else ()
    if escaping:
        groups *= 16
        groups[:, :: symbols.size // escaping] = 1
        groups[:, :: 4 * (symbols.size // escaping)] = 0
    model = model_of(symbols, groups, edges, 12, Alphabet.APART)
    encoder = encoder_of(model, spec, frame, lanes)
    step = encoder.frame_elements
    payloads = [encoder.frame(bits[at : at + step]) for at in range(0, bits.size, step)]
    return RansDecoder(encoder.params, encoder.prologue(), spec), payloads


def made(block: Block, base: np.ndarray, terms: list, out_dtype: str = "BF16") -> np.ndarray:
    """One block: the terms are Terms, or (alpha, decoder, payloads), or (alpha, product, first)."""
    block.start(base.size, "BF16", out_dtype)[:] = base
    for term in terms:
        if isinstance(term, Term):
            block.decoded(term.alpha, term.dtype)[:] = term.delta
        elif isinstance(term[1], DeviceRans):
            block.encoded(term[0], "BF16", term[1], term[2])
        else:
            block.product(*term)
    block.launch()
    return block.result().copy()


def expected(base: np.ndarray, terms: list[Term], out_dtype: str = "BF16") -> np.ndarray:
    out = np.empty(base.size, dtype=np.uint32 if out_dtype == "F32" else np.uint16)
    delta.add(base, "BF16", terms, out, out_dtype)
    return out


def bases(size: int) -> np.ndarray:
    """Every special pattern of bfloat16 and random ones."""
    found = np.random.default_rng(3).integers(0, 1 << 16, size).astype(np.uint16)
    found[: len(SPECIAL_BITS["BF16"])] = SPECIAL_BITS["BF16"]
    return found


@pytest.fixture
def block() -> Block:
    return Block(Lanes(DEVICE))


def test_the_kernels_are_what_runs_here() -> None:
    assert kernels_for(torch.device(DEVICE))


@pytest.mark.parametrize("lanes", [16, 32])
def test_frames_decoded_on_the_device_are_the_elements(block: Block, lanes: int) -> None:
    """Rows of several classes, escapes and plain symbols, a short last frame and odd ends."""
    bits = deltas(23, 301, seed=lanes)
    decoder, payloads = encoded(bits, 301, 3_000, lanes, escaping=20)
    assert len(payloads) > 2
    assert decoder.classes > 1
    step = decoder.frame_elements
    frames = [decoder.opened(p, min(step, bits.size - i * step)) for i, p in enumerate(payloads)]
    assert any(frame.escapes > frame.plain > 0 for frame in frames)
    source = DeviceRans(decoder, torch.device(DEVICE))
    zeros = np.zeros(bits.size, dtype=np.uint16)
    assert np.array_equal(made(block, zeros, [(1.0, source, payloads)]), bits)


@pytest.mark.parametrize("alphas", [[1.0], [0.7], [1.0, -0.3]])
def test_decoding_and_adding_has_the_bits_of_the_rule(block: Block, alphas: list[float]) -> None:
    alphas = [float(np.float32(alpha)) for alpha in alphas]
    base, device = bases(600), torch.device(DEVICE)
    plain, coded = [], []
    for i, alpha in enumerate(alphas):
        bits = deltas(2, 300, seed=i)
        decoder, payloads = encoded(bits, 300, 300)
        plain.append(Term(alpha, bits, "BF16"))
        coded.append((alpha, DeviceRans(decoder, device), payloads))
    assert np.array_equal(made(block, base, coded), expected(base, plain))


def test_adding_special_values_has_the_bits_of_the_rule(block: Block) -> None:
    """Every special pattern with every other, as base and as Δ."""
    special = np.array(SPECIAL_BITS["BF16"], dtype=np.uint16)
    base, change = np.repeat(special, special.size), np.tile(special, special.size)
    for alpha in (1.0, 0.75, -1.5, 0.0, float(np.float32(1e-20)), float(np.float32(1e20))):
        terms = [Term(alpha, change, "BF16"), Term(-0.5, change[::-1].copy(), "BF16")]
        for chosen in (terms[:1], terms):
            assert np.array_equal(made(block, base, chosen), expected(base, chosen))


@pytest.mark.parametrize("out_dtype", ["F16", "F32"])
def test_other_dtypes_and_mixed_terms_have_the_bits_of_the_rule(
    block: Block, out_dtype: str
) -> None:
    base, wide = bases(500), np.random.default_rng(1).standard_normal(500).astype(np.float32)
    terms = [Term(0.5, deltas(1, 500, 4), "BF16"), Term(1.0, wide.view(np.uint32), "F32")]
    assert np.array_equal(made(block, base, terms, out_dtype), expected(base, terms, out_dtype))


def test_a_product_is_multiplied_on_the_device(block: Block) -> None:
    random = np.random.default_rng(9)
    left, right = (
        random.standard_normal(shape).astype(np.float32).view(np.uint32).reshape(-1)
        for shape in ((20, 3), (3, 40))
    )
    source = LowRank(left, "F32", right, "F32", 20, 40, 3, False, 0.5)
    rows = np.empty(200, dtype=np.uint32)
    source.rows_into(120, rows)
    base, alpha = bases(200), float(np.float32(0.9))
    found = made(block, base, [(alpha, DeviceLowRank(source, DEVICE), 120)])
    assert np.array_equal(found, expected(base, [Term(alpha, rows, "F32")]))


def test_blocks_in_flight_do_not_touch_each_other() -> None:
    """Two blocks of one set of streams, started before either is read, used several times."""
    lanes = Lanes(DEVICE)
    blocks = [Block(lanes), Block(lanes)]
    for seed in range(0, 6, 2):
        wanted = []
        for i, block in enumerate(blocks):
            base, bits = bases(400 + seed), deltas(1, 400 + seed, seed + i)
            block.start(base.size, "BF16", "BF16")[:] = base
            block.decoded(1.0, "BF16")[:] = bits
            block.launch()
            wanted.append(expected(base, [Term(1.0, bits, "BF16")]))
        for block, want in zip(blocks, wanted, strict=True):
            assert np.array_equal(block.result(), want)


def test_damaged_frames_are_told_and_nothing_outside_is_read(block: Block) -> None:
    """Every word of a payload changed in turn, with a checksum that fits the lie."""
    bits = deltas(2, 256, seed=7)
    decoder, (payload,) = encoded(bits, 256, 512)
    source, base = DeviceRans(decoder, torch.device(DEVICE)), np.zeros(512, dtype=np.uint16)
    words = np.frombuffer(payload, dtype="<u4")
    for place in range(1, words.size, max(1, words.size // 12)):
        lie = words.copy()
        lie[place] ^= np.uint32(0x10001)
        lie[0] = rans_numpy.checksum(lie[1:])
        try:
            found = made(block, base, [(1.0, source, [lie.tobytes()])])
        except CorruptError:
            continue
        out = np.empty_like(base)
        decoder.frame(lie.tobytes(), out)  # such a change is another frame to the processor too
        assert np.array_equal(found, out)


def test_a_block_with_too_few_or_cut_frames_is_refused(block: Block) -> None:
    bits = deltas(4, 256, seed=8)
    decoder, payloads = encoded(bits, 256, 256)
    source, base = DeviceRans(decoder, torch.device(DEVICE)), np.zeros(1024, dtype=np.uint16)
    for bad in (payloads[:-1], [*payloads[:-1], payloads[-1][:-4]], [*payloads, payloads[0]]):
        with pytest.raises(CorruptError):
            made(block, base, [(1.0, source, bad)])
