"""The contract of every codec: what goes in comes out, and strangers' bytes do no harm."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import bit_arrays, bits_of, carrier_of
from support.codecs import encoder_of, model_of

from paramdelta import codecs, delta, kernels, kernels_rans, processor
from paramdelta.codecs import CODECS, palette, planes, rans, rans_model, rans_numpy, raw, zero
from paramdelta.codecs.alphabets import SIGN, Alphabet
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.survey import Statistics
from paramdelta.codecs.zstd import Compressor, decompress
from paramdelta.delta import Term
from paramdelta.errors import CorruptError, InvalidError


def histogram(elements: np.ndarray) -> np.ndarray:
    return np.bincount(elements, minlength=1 << 16)


def range_coders(elements: np.ndarray, dtype: str, row: int) -> list[codecs.Encoder]:
    """With small and large tables, in every alphabet, in one class or several."""
    stats = Statistics(dtype, row)
    stats.update(elements)
    symbols, counts = stats.finish()
    spec = TensorSpec(dtype, elements.size, row)
    if symbols.size > rans_model.MAX_SYMBOLS:
        return []
    ends = min(len(counts), rans_model.MAX_CLASSES)
    apart = np.add.reduceat(counts, range(ends), axis=0), tuple(stats.bins[: ends - 1])
    together = counts.sum(axis=0, keepdims=True), ()
    known = list(Alphabet) if SIGN not in symbols else [Alphabet.APART]
    found: list[codecs.Encoder] = []
    for bits, (groups, edges), alphabet in itertools.product(rans.BITS, (together, apart), known):
        lanes = rans.LANES if alphabet == Alphabet.APART else rans.FEW_LANES
        model = model_of(symbols, groups, edges, bits, alphabet, dtype)
        found.append(encoder_of(model, spec, 1 << 18, lanes))
    return found


def encoders(elements: np.ndarray, dtype: str, row: int) -> list[codecs.Encoder]:
    """Every way of encoding these elements."""
    spec = TensorSpec(dtype, elements.size, row)
    found: list[codecs.Encoder] = [planes.PlanesEncoder(spec), raw.RawEncoder(spec)]
    if not elements.any():
        found.append(zero.ZeroEncoder())
    if dtype in ("BF16", "F16"):
        found += [
            palette.PaletteEncoder(histogram(elements), spec, sparse=sparse, ranked=ranked)
            for sparse in (False, True)
            for ranked in (False, True)
        ]
        found += range_coders(elements, dtype, row) if elements.size else []
    return found


def through(encoder: codecs.Encoder, elements: np.ndarray, dtype: str, row: int) -> np.ndarray:
    prologue, size = encoder.prologue(), encoder.frame_elements
    decoder = codecs.open_decoder(encoder.name, encoder.params, prologue, dtype, elements.size, row)
    assert decoder.frame_elements == size
    out = np.empty_like(elements)
    for start in range(0, elements.size, size):
        piece = elements[start : start + size]
        decoder.frame(encoder.frame(piece), out[start : start + size])
    return out


def normal(count: int, seed: int = 0, zeros: float = 0.0, dtype: str = "BF16") -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.standard_normal(count) * 1e-3 * (random.random(count) >= zeros)
    return bits_of(values + 0.0, dtype)  # −0 + 0 is +0, as in every Δ


def difference(count: int) -> np.ndarray:
    """Δ of weights like a model's: a small multiple of each base element's last place."""
    random = np.random.default_rng(2)
    weights = random.standard_normal(count) * 0.02
    base, post = (
        bits_of(weights, "BF16"),
        bits_of(weights + random.standard_normal(count) * 2e-4, "BF16"),
    )
    out = np.empty_like(base)
    delta.extract(base, "BF16", post, "BF16", out)
    return out


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_codec_gives_back_any_bits(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["BF16", "F16", "F32"]))
    row = data.draw(st.integers(1, 9))
    count = row * data.draw(st.integers(1, 40))
    elements = data.draw(bit_arrays(dtype, count))
    for encoder in encoders(elements, dtype, row):
        assert np.array_equal(through(encoder, elements, dtype, row), elements)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("shape", [(3000, 700), (40, 65_536), (1, 1_300_000)])
def test_every_codec_gives_back_several_frames(zeros: float, shape: tuple[int, int]) -> None:
    elements = normal(shape[0] * shape[1], zeros=zeros)
    for encoder in encoders(elements, "BF16", shape[1]):
        assert np.array_equal(through(encoder, elements, "BF16", shape[1]), elements)


def chosen(elements: np.ndarray, dtype: str = "BF16", row: int = 512) -> codecs.Encoder:
    stats = codecs.Statistics(dtype, row)
    for start in range(0, elements.size, 1000):
        stats.update(elements[start : start + 1000])
    return codecs.choose(stats, elements.size, dtype, row)


def test_a_tensor_that_did_not_change_is_stored_as_nothing() -> None:
    assert chosen(np.zeros(5000, dtype=np.uint16)).name == "zero"


def stored_bytes(encoder: codecs.Encoder, elements: np.ndarray) -> int:
    """With the prologue and the lengths of the frames."""
    size = encoder.frame_elements
    frames = [encoder.frame(elements[i : i + size]) for i in range(0, elements.size, size)]
    return len(encoder.prologue()) + sum(4 + len(frame) for frame in frames)


def test_the_smallest_way_is_chosen() -> None:
    wide = np.random.default_rng(0).integers(0, 1 << 16, 1 << 18).astype(np.uint16)
    for elements in (normal(1 << 18), normal(1 << 18, zeros=0.9), wide, normal(600)):
        least = min(stored_bytes(e, elements) for e in encoders(elements, "BF16", 512))
        assert stored_bytes(chosen(elements), elements) <= 1.02 * least


def stored_bits(elements: np.ndarray, row: int) -> float:
    """A weight, with the prologue and all frames."""
    return 8 * stored_bytes(chosen(elements, row=row), elements) / elements.size


def entropy_bits(elements: np.ndarray) -> float:
    counts = histogram(elements)
    shares = counts[counts > 0] / elements.size
    return float(-(shares * np.log2(shares)).sum())


def test_a_delta_needs_little_more_than_the_entropy_of_its_values() -> None:
    elements = difference(1 << 20)
    assert stored_bits(elements, 2048) < 1.005 * entropy_bits(elements)


def test_rows_of_different_scale_take_it_below_the_entropy() -> None:
    scales = np.repeat(np.exp2(np.random.default_rng(4).integers(-3, 4, 512)), 2048)
    values = delta.to_float32(difference(1 << 20), "BF16") * scales
    elements = bits_of(values, "BF16")
    assert stored_bits(elements, 2048) < 0.9 * entropy_bits(elements)


@pytest.mark.parametrize("zeros", [0.85, 0.98])
def test_few_changes_cost_what_they_say(zeros: float) -> None:
    kept = np.random.default_rng(5).random(1 << 20) >= zeros
    elements = difference(1 << 20) * kept
    assert stored_bits(elements, 2048) < 1.05 * entropy_bits(elements)


def test_encoding_is_a_pure_function_of_the_elements() -> None:
    elements = normal(1 << 18)
    assert chosen(elements).frame(elements) == chosen(elements.copy()).frame(elements)


@pytest.mark.parametrize("name", ["rans", "palette", "planes", "raw", "zero"])
@pytest.mark.parametrize("alpha", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("count", [4096, 1 << 16])
def test_adding_a_frame_is_decoding_and_adding(name: str, alpha: float, count: int) -> None:
    alpha = float(np.float32(alpha))
    elements = normal(count) if name != "zero" else np.zeros(count, dtype=np.uint16)
    base = bits_of(np.random.default_rng(3).standard_normal(count), "BF16")
    encoder = next(e for e in encoders(elements, "BF16", 64) if e.name == name)
    decoder = codecs.open_decoder(name, encoder.params, encoder.prologue(), "BF16", count, 64)
    out, expected = np.empty_like(base), np.empty_like(base)
    decoder.add_frame(
        encoder.frame(elements[: encoder.frame_elements]), alpha, base, "BF16", out, "BF16"
    )
    delta.add(base, "BF16", [Term(alpha, elements, "BF16")], expected, "BF16")
    assert np.array_equal(out, expected)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_frames_are_refused_or_harmless(data: st.DataObject) -> None:
    """zstd's checksum finds flips inside its frames; our own tables are checked too."""
    elements = normal(640, zeros=0.3)
    encoder = data.draw(st.sampled_from(encoders(elements, "BF16", 16)))
    payload, prologue = bytearray(encoder.frame(elements)), bytearray(encoder.prologue())
    target = data.draw(st.sampled_from([payload, prologue] if prologue else [payload]))
    kind = data.draw(st.sampled_from(["flip", "cut", "extend"]))
    place = data.draw(st.integers(0, len(target) - 1))
    if kind == "flip":
        target[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del target[place:]
    else:
        target += bytes(data.draw(st.integers(1, 9)))
    out = np.full(elements.size, 0xABCD, dtype=np.uint16)
    try:
        decoder = codecs.open_decoder(
            encoder.name, encoder.params, bytes(prologue), "BF16", elements.size, 16
        )
        decoder.frame(bytes(payload), out)
    except InvalidError:
        return
    assert target is prologue or np.array_equal(out, elements)


LOOPS = {
    "at once": kernels._compiled_coder,
    "at once, scalar": lambda: dataclasses.replace(
        kernels._compiled_coder(), frame=kernels._FRAMES.scalar
    ),
    "vectors": lambda: dataclasses.replace(kernels._compiled_coder(), frame=None),
    "scalar": lambda: kernels.Coder(
        kernels_rans.encode, kernels_rans.decode, kernels_rans.checksum
    ),
    "numpy": kernels._plain_coder,
}


@pytest.mark.parametrize("loops", LOOPS)
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_range_coded_frames_that_lie_with_a_right_checksum_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, loops: str, zeros: float
) -> None:
    """They decode to something or are refused; nothing outside the output is written."""
    monkeypatch.setattr(rans, "coder", lambda n: LOOPS[loops]())
    random = np.random.default_rng(6)
    elements = difference(3000) * (random.random(3000) >= zeros)
    canary = np.full(elements.size + 200, 0xABCD, dtype=np.uint16)
    refused = 0
    for encoder in range_coders(elements, "BF16", 150):
        payload = np.frombuffer(encoder.frame(elements), dtype="<u4")
        decoder = codecs.open_decoder(
            encoder.name, encoder.params, encoder.prologue(), "BF16", elements.size, 150
        )
        for trial in range(60):
            lie = payload.copy()
            place = random.integers(1, 40 if trial % 2 else lie.size)
            lie[place] ^= np.uint32(1 << random.integers(0, 32))
            lie[0] = rans_numpy.checksum(lie[1:])
            try:
                decoder.frame(lie.tobytes(), canary[100:-100])
            except InvalidError:
                refused += 1
        assert (canary[:100] == 0xABCD).all()
        assert (canary[-100:] == 0xABCD).all()
        decoder.frame(payload.tobytes(), canary[100:-100])
        assert np.array_equal(canary[100:-100], elements)
    assert refused > 300


@pytest.mark.parametrize("frame", ["scalar", "vectors"])
def test_a_frame_that_is_taken_at_once_is_refused_where_it_is_step_by_step(
    monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    """Lies in every field, with a right checksum: the same verdict, and the same elements."""
    if frame == "vectors" and not processor.has(*kernels.AVX512):
        pytest.skip("no AVX-512")
    one_call = getattr(kernels._FRAMES, frame)
    steps = dataclasses.replace(kernels._compiled_coder(), frame=None)
    monkeypatch.setattr(rans, "coder", lambda n: steps)
    random = np.random.default_rng(8)
    elements, verdicts = difference(3000), set()
    for encoder in range_coders(elements, "BF16", 150):
        payload = np.frombuffer(encoder.frame(elements), dtype="<u4")
        decoder = codecs.open_decoder(
            encoder.name, encoder.params, encoder.prologue(), "BF16", elements.size, 150
        )
        loops = dataclasses.replace(steps, frame=one_call)
        for trial in range(300):
            lie = payload.copy()
            place = random.integers(1, (6, 40, lie.size)[trial % 3])
            lie[place] ^= np.uint32(1 << random.integers(0, 32))
            lie[0] = rans_numpy.checksum(lie[1:])
            slow, fast = np.zeros_like(elements), np.zeros_like(elements)
            try:
                decoder.frame(lie.tobytes(), slow)
                sound = True
            except InvalidError:
                sound = False
            found = decoder._at_once(loops, lie.tobytes(), fast[:0], 1.0, 0, fast)
            assert (found is not None) == sound, (trial, place)
            assert not sound or np.array_equal(slow, fast)
            verdicts.add(sound)
    assert verdicts == {True, False}


def test_a_flip_in_any_word_of_a_range_coded_frame_is_found() -> None:
    """In plain symbols at the end, too, which nothing but the checksum covers."""
    elements, plain = difference(1 << 15), 0
    for encoder in range_coders(elements, "BF16", 150):
        payload = encoder.frame(elements)
        plain += int.from_bytes(payload[12:16], "little")
        decoder = codecs.open_decoder(
            encoder.name, encoder.params, encoder.prologue(), "BF16", elements.size, 150
        )
        for place in [*range(0, len(payload), 997), len(payload) - 4]:
            flipped = bytearray(payload)
            flipped[place] ^= 1
            with pytest.raises(CorruptError):
                decoder.frame(bytes(flipped), np.empty_like(elements))
    assert plain > 0


def test_words_that_lie_with_a_right_checksum_are_found_at_the_end() -> None:
    """The states do not come back to where they began."""
    elements = difference(3000)
    encoder = range_coders(elements, "BF16", 150)[0]
    payload = np.frombuffer(encoder.frame(elements), dtype="<u4").copy()
    decoder = codecs.open_decoder(
        encoder.name, encoder.params, encoder.prologue(), "BF16", elements.size, 150
    )
    end, found = 4 + 2 * encoder.params["lanes"] + int(payload[1]), 0
    for place, bit in itertools.product(range(end - 40, end), range(32)):
        lie = payload.copy()
        lie[place] ^= np.uint32(1 << bit)
        lie[0] = rans_numpy.checksum(lie[1:])
        try:
            decoder.frame(lie.tobytes(), np.empty_like(elements))
        except CorruptError:
            found += 1
    assert found >= 0.98 * 40 * 32  # another symbol of the same frequency may stand there as well


def test_frequency_tables_that_lie_are_refused() -> None:
    elements = difference(1 << 14)
    for encoder in range_coders(elements, "BF16", 256):
        model = rans_model.from_bytes(encoder.prologue(), encoder.params["bits"], "BF16")
        tables = model.tables.copy()
        tables[0, np.argmax(tables[0])] += 1
        falling = model.symbols[::-1]
        lies = [
            rans_model.to_bytes(replace(model, tables=tables)),
            encoder.prologue() + b"\0",
            encoder.prologue()[:9],
            encoder.prologue()[:4] + b"\0" + encoder.prologue()[5:],  # no class
            encoder.prologue()[:4] + b"\x11" + encoder.prologue()[5:],  # too many
            encoder.prologue()[:5] + b"\x08" + encoder.prologue()[6:],  # an unknown flag
            encoder.prologue()[:5] + b"\x05" + encoder.prologue()[6:],  # graded, not mirrored
            b"\xff\xff\xff\xff" + encoder.prologue()[4:],  # four billion symbols
        ]
        if model.alphabet == Alphabet.APART:
            lies.append(rans_model.to_bytes(replace(model, symbols=falling)))
        for lie in lies:
            params = {**encoder.params, "prologue_bytes": len(lie)}
            with pytest.raises(InvalidError):
                codecs.open_decoder("rans", params, lie, "BF16", elements.size, 256)


def test_elements_that_were_not_counted_are_refused() -> None:
    elements = np.tile(np.array([1, 2, 3, 0], dtype=np.uint16), 2000)
    stats = Statistics("BF16", 400)
    stats.update(elements)
    symbols, counts = stats.finish()
    spec = TensorSpec("BF16", elements.size, 400)
    encoder, _ = rans.fitted(symbols, counts, stats.bins, spec)
    assert encoder is not None
    with pytest.raises(ValueError, match="counted"):
        encoder.frame(elements + np.uint16(7))


@pytest.mark.parametrize("name", [*CODECS, "lzma", ""])
@pytest.mark.parametrize(
    "params",
    [
        {"frame_elements": -1}, {"frame_elements": 1 << 40}, {"frame_elements": True},
        {"frame_elements": "9"}, {"nonsense": 1},
        {"frame_elements": 8, "prologue_bytes": 6, "sparse": 2, "row_length": 0},
        {"frame_elements": 8, "prologue_bytes": 6, "sparse": 0, "row_length": 3},
        {"frame_elements": 8, "prologue_bytes": 6, "bits": 40, "unit": 8, "lanes": 32},
        {"frame_elements": 8, "prologue_bytes": 6, "bits": 12, "unit": 0, "lanes": 32},
        {"frame_elements": 8, "prologue_bytes": 6, "bits": 12, "unit": 8, "lanes": 17},
    ],
)  # fmt: skip
def test_malformed_parameters_are_refused(name: str, params: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        codecs.open_decoder(name, params, b"\0" * 6, "BF16", 8, 1)


def test_patterns_of_32_bit_elements_are_refused() -> None:
    params: dict[str, object] = {"frame_elements": 8, "prologue_bytes": 6}
    more = {
        "palette": {"sparse": 0, "row_length": 0},
        "rans": {"bits": 12, "unit": 8, "lanes": 32},
    }
    for name, rest in more.items():
        with pytest.raises(InvalidError, match="F32"):
            codecs.open_decoder(name, params | rest, b"\0" * 6, "F32", 8, 1)


def small_palette(elements: np.ndarray) -> tuple[palette.PaletteEncoder, palette.PaletteDecoder]:
    spec = TensorSpec("BF16", elements.size, 4)
    encoder = palette.PaletteEncoder(histogram(elements), spec, sparse=False, ranked=True)
    decoder = palette.PaletteDecoder(encoder.params, encoder.prologue(), spec)
    return encoder, decoder


def rebuilt(payload: bytes, part: int, data: bytes) -> bytes:
    import struct

    parts = planes.split(payload, 5)
    parts[part] = Compressor().compress(data) if data else b""
    return struct.pack("<5I", *map(len, parts)) + b"".join(parts)


@pytest.mark.parametrize(
    ("part", "data"),
    [
        (0, b"\0" * 40),  # the order names row 0 twenty times
        (0, b"\xff" * 40),  # rows that do not exist
        (0, b""),
        (1, b"\xff" * 10),  # a mask in a dense tensor
        (2, b"\x07" * 80),  # a code beyond the palette
        (2, b"\xff" * 80),  # escapes without values
        (3, b"\0"),  # values without escapes
    ],
)
def test_frames_that_lie_are_refused(part: int, data: bytes) -> None:
    elements = np.tile(np.array([1, 2, 3, 0], dtype=np.uint16), 20)
    encoder, decoder = small_palette(elements)
    payload = rebuilt(encoder.frame(elements), part, data)
    with pytest.raises(InvalidError):
        decoder.frame(payload, np.empty_like(elements))


def test_a_zstd_frame_must_be_what_it_promises() -> None:
    import zstandard

    compressor = Compressor()
    good = compressor.compress(b"x" * 100)
    assert decompress(good, 100) == b"x" * 100
    bad = [good[:-1], good + b"\0", good + good, b"", b"\x28\xb5\x2f\xfd", b"no zstd at all"]
    bad.append(zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100))
    bad.append(zstandard.ZstdCompressor(write_checksum=False).compress(b"x" * 100))
    for frame in bad:
        with pytest.raises(InvalidError):
            decompress(frame, 100)
    for size in (99, 101):
        with pytest.raises(InvalidError):
            decompress(good, size)
    huge = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            window_log=27, write_checksum=1, write_content_size=1
        )
    ).compress(bytes(1 << 27))
    with pytest.raises(InvalidError):
        decompress(huge, 1 << 27)


def test_an_encoder_of_zeros_refuses_anything_else() -> None:
    with pytest.raises(ValueError, match="zero"):
        zero.ZeroEncoder().frame(np.ones(3, dtype=np.uint16))
    with pytest.raises(InvalidError):
        codecs.open_decoder("zero", {}, b"", "BF16", 3, 1).frame(b"x", np.zeros(3, np.uint16))


def test_tensors_stored_whole_keep_any_dtype() -> None:
    random = np.random.default_rng(0)
    for dtype in ("I64", "BOOL", "F64", "F8_E4M3", "F32", "BF16"):
        elements = random.integers(0, 200, 1000).astype(carrier_of(dtype))
        encoder = codecs.whole(1000, dtype, 10)
        assert np.array_equal(through(encoder, elements, dtype, 10), elements)
