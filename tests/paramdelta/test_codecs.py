"""The contract of every codec: what goes in comes out, and strangers' bytes do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import bit_arrays, bits_of, carrier_of

from paramdelta import codecs, delta
from paramdelta.codecs import CODECS, palette, planes, raw, zero
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.zstd import Compressor, decompress
from paramdelta.delta import Term
from paramdelta.errors import InvalidError


def histogram(elements: np.ndarray) -> np.ndarray:
    return np.bincount(elements, minlength=1 << 16)


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


def test_the_smallest_way_is_chosen() -> None:
    wide = np.random.default_rng(0).integers(0, 1 << 16, 1 << 18).astype(np.uint16)
    for elements in (normal(1 << 18), normal(1 << 18, zeros=0.9), wide, normal(600)):
        best = chosen(elements)
        sizes = {
            (e.name, str(e.params)): len(e.prologue())
            + sum(
                len(e.frame(elements[i : i + e.frame_elements]))
                for i in range(0, elements.size, e.frame_elements)
            )
            for e in encoders(elements, "BF16", 512)
        }
        assert sizes[(best.name, str(best.params))] <= 1.02 * min(sizes.values())


def test_a_palette_comes_near_the_entropy_of_its_values() -> None:
    elements = difference(1 << 20)
    counts = histogram(elements)
    shares = counts[counts > 0] / elements.size
    entropy = -(shares * np.log2(shares)).sum()
    encoder = chosen(elements)
    size = len(encoder.prologue()) + len(encoder.frame(elements))
    assert 8 * size / elements.size < 1.03 * entropy


def test_encoding_is_a_pure_function_of_the_elements() -> None:
    elements = normal(1 << 18)
    assert chosen(elements).frame(elements) == chosen(elements.copy()).frame(elements)


@pytest.mark.parametrize("name", ["palette", "planes", "raw", "zero"])
def test_adding_a_frame_is_decoding_and_adding(name: str) -> None:
    elements = normal(4096) if name != "zero" else np.zeros(4096, dtype=np.uint16)
    base = bits_of(np.random.default_rng(3).standard_normal(4096), "BF16")
    encoder = next(e for e in encoders(elements, "BF16", 64) if e.name == name)
    decoder = codecs.open_decoder(name, encoder.params, encoder.prologue(), "BF16", 4096, 64)
    out, expected = np.empty_like(base), np.empty_like(base)
    decoder.add_frame(encoder.frame(elements), 0.5, base, "BF16", out, "BF16")
    delta.add(base, "BF16", [Term(0.5, elements, "BF16")], expected, "BF16")
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


@pytest.mark.parametrize("name", [*CODECS, "lzma", ""])
@pytest.mark.parametrize(
    "params",
    [
        {"frame_elements": -1}, {"frame_elements": 1 << 40}, {"frame_elements": True},
        {"frame_elements": "9"}, {"nonsense": 1},
        {"frame_elements": 8, "prologue_bytes": 6, "sparse": 2, "row_length": 0},
        {"frame_elements": 8, "prologue_bytes": 6, "sparse": 0, "row_length": 3},
    ],
)  # fmt: skip
def test_malformed_parameters_are_refused(name: str, params: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        codecs.open_decoder(name, params, b"\0" * 6, "BF16", 8, 1)


def test_a_palette_of_32_bit_elements_is_refused() -> None:
    params = {"frame_elements": 8, "prologue_bytes": 6, "sparse": 0, "row_length": 0}
    with pytest.raises(InvalidError, match="F32"):
        codecs.open_decoder("palette", params, b"\0" * 6, "F32", 8, 1)


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
