"""The compiled exact stream gives the bytes, posts and refusals of the numpy code, one by one."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from support.checkpoints import SPECIAL_BITS, bits_of, carrier_of

from paramdelta import delta, kernels, patch
from paramdelta.codecs.zstd import Compressor, decompress_up_to
from paramdelta.errors import CorruptError
from paramdelta.kernels import WORTH
from paramdelta.patch import PatchDecoder, PatchEncoder

SIZE = 600  # of frames that are given to the kernels themselves
LARGE = 2 * WORTH
GUARD = 0xA5


@pytest.fixture(scope="module")
def fast():
    found = kernels.patcher(LARGE)
    assert found is not None, "numba does not work here"
    return found


def frames(size: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """base, Δ and post. Where Δ is not theirs, elements have to be listed."""
    random = np.random.default_rng(seed)
    base, post, other = random.integers(0, 1 << 16, (3, size)).astype(np.uint16)
    special = np.array(SPECIAL_BITS["BF16"], dtype=np.uint16)
    weights = random.standard_normal(size) * 0.02
    near = bits_of(weights, "BF16")
    moved = bits_of(weights + random.standard_normal(size) * 5e-4, "BF16")
    far = bits_of(random.standard_normal(size), "BF16")
    pairs = {
        "any bits": (base, post, post),
        "special": (random.choice(special, size), *[random.choice(special, size)] * 2),
        "trained": (near, moved, moved),
        "far": (near, far, far),
        "equal": (near, near, near),
        "another's Δ": (near, far, moved),
        "any Δ": (base, other, post),
    }
    found = {}
    for name, (one, two, wanted) in pairs.items():
        change = np.empty_like(one)
        delta.extract(one, "BF16", two, "BF16", change)
        found[name] = one, change, wanted
    return found


NAMES = list(frames(1, 0))


def body_by_numpy(base, change, post) -> tuple[bytes, np.ndarray, np.ndarray, int]:
    """What is compressed, the candidates, what the rule made, and how many elements differ."""
    made = np.empty_like(post)
    candidates = patch._rebuild(base, "BF16", change, "BF16", made)
    encoder = PatchEncoder("BF16", "BF16")
    payload = encoder._payload(candidates, made, post)
    body = decompress_up_to(payload, 1 << 24) if payload else b""
    return body, candidates.astype(np.uint32), made, encoder.patched


def counts_of(body: bytes) -> tuple[int, ...]:
    return struct.unpack_from("<II", body)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, SIZE])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_body_is_the_same_and_stays_in_its_room(fast, name: str, size: int, seed: int) -> None:
    base, change, post = frames(size, seed)[name]
    wanted, candidates, made, differ = body_by_numpy(base, change, post)
    out, suspect = np.empty_like(post), np.empty(size, dtype=np.uint8)
    places = np.empty(size + 1, dtype=np.uint32)
    room = np.full(8 + 9 * size + 16, GUARD, dtype=np.uint8)
    body = room[: 8 + 9 * size]
    count, differs, length = fast.written(base, change, post, out, suspect, places, body)
    assert (count, differs, length) == (candidates.size, differ, len(wanted))
    assert np.array_equal(places[:count], candidates)
    assert np.array_equal(out, made)
    assert body[:length].tobytes() == wanted
    assert (room[body.size :] == GUARD).all()


def test_the_cases_hold_large_steps_and_listed_elements() -> None:
    """So that the tests here are about what they say."""
    cases = frames(SIZE, 1)
    told = {name: counts_of(body_by_numpy(*cases[name])[0]) for name in NAMES if name != "equal"}
    assert told["trained"] == (0, 0)
    assert told["any bits"][0] > 0 and told["any bits"][1] == 0
    assert told["another's Δ"][1] > 100
    assert told["any Δ"][0] > 0 and told["any Δ"][1] > 100


@pytest.mark.parametrize("name", NAMES)
def test_payloads_are_the_same_and_come_back(monkeypatch, name: str) -> None:
    base, change, post = frames(LARGE, 3)[name]

    def work() -> tuple[bytes, int]:
        encoder = PatchEncoder("BF16", "BF16")
        payload = encoder.frame(base, change, post)
        out = np.empty_like(post)
        PatchDecoder("BF16", "BF16").frame(payload, base, change, out)
        assert np.array_equal(out, post)
        return payload, encoder.patched

    by_kernels = work()
    monkeypatch.setattr(kernels, "_load", lambda: False)
    assert work() == by_kernels
    assert bool(by_kernels[1]) == (name != "equal")


def test_a_room_that_served_a_frame_says_nothing_about_the_next() -> None:
    """Of other kinds and sizes, by one encoder and one decoder."""
    encoder, decoder = PatchEncoder("BF16", "BF16"), PatchDecoder("BF16", "BF16")
    for size in (LARGE, WORTH, LARGE + 1):
        for base, change, post in frames(size, size).values():
            payload = encoder.frame(base, change, post)
            assert payload == PatchEncoder("BF16", "BF16").frame(base, change, post)
            out = np.empty_like(post)
            decoder.frame(payload, base, change, out)
            assert np.array_equal(out, post)


@pytest.mark.parametrize("base_dtype", ["F32", "F16"])
def test_large_frames_of_a_base_of_another_dtype_come_back(base_dtype: str) -> None:
    random = np.random.default_rng(4)
    weights = random.standard_normal(LARGE) * 0.02
    base = bits_of(weights, base_dtype)
    post = bits_of(weights + random.standard_normal(LARGE), "BF16")
    change = np.empty(LARGE, dtype=carrier_of(delta.delta_dtype(base_dtype, "BF16")))
    delta.extract(base, base_dtype, post, "BF16", change)
    post[::1000] ^= 1  # so that there is something to patch
    payload = PatchEncoder(base_dtype, "BF16").frame(base, change, post)
    out = np.empty_like(post)
    PatchDecoder(base_dtype, "BF16").frame(payload, base, change, out)
    assert payload and np.array_equal(out, post)


def mutated(body: bytes, candidates: int, random: np.random.Generator) -> bytes:
    """A frame by a stranger: one to three things are not as they should be."""
    data = bytearray(body)
    large, listed = counts_of(body)
    for _ in range(random.integers(1, 4)):
        kind = random.integers(0, 8)
        if kind == 0:
            del data[int(random.integers(0, len(data) + 1)) :]
        elif kind == 1:
            data += bytes(int(random.integers(1, 20)))
        elif kind == 2 and len(data) >= 8:
            promised = random.choice([0, 1, large, listed, large + 1, (1 << 32) - 1, 1 << 29])
            struct.pack_into("<I", data, 4 * int(random.integers(0, 2)), int(promised))
        elif kind == 3 and candidates and len(data) > 8 + candidates:
            data[8 + int(random.integers(0, candidates))] = random.choice([0, 1, 2, 254, 255])
        elif kind == 4 and large and len(data) > 8 + candidates + 8 * large:
            at = 8 + candidates + 8 * int(random.integers(0, large))
            steps = [0, 1, 2, 254, 131_070, 131_071, 131_072, 1 << 32, (1 << 64) - 1, (1 << 64) - 2]
            struct.pack_into("<Q", data, at, steps[random.integers(0, len(steps))])
        elif kind in (5, 6) and listed and len(data) >= 8 + candidates + 8 * (large + listed):
            at = 8 + candidates + 8 * (large + int(random.integers(0, listed)))
            word = random.choice([0, 1, SIZE - 1, SIZE, 0xFFFF, 0x10000, (1 << 32) - 1])
            struct.pack_into("<I", data, at + 4 * (kind - 5), int(word))
        elif data:
            data[int(random.integers(0, len(data)))] ^= 1 << int(random.integers(0, 8))
    return bytes(data)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "equal"])
def test_strangers_frames_are_taken_or_refused_as_by_numpy(fast, name: str) -> None:
    """And where one is refused, nothing was written: its places are looked at first."""
    random, taken, refused = np.random.default_rng(6), 0, 0
    body, candidates, made, _ = body_by_numpy(*frames(SIZE, 1)[name])
    for _ in range(1500):
        hostile = mutated(body, candidates.size, random)
        wanted, out = made.copy(), made.copy()
        try:
            patch._apply(hostile, candidates, wanted, "BF16")
            sound = 1
        except CorruptError:
            sound, wanted = 0, made
        found = fast.restored(np.frombuffer(hostile, np.uint8), candidates, out)
        assert found == sound
        assert np.array_equal(out, wanted)
        taken, refused = taken + sound, refused + 1 - sound
    assert taken > 50 and refused > 50


@pytest.mark.parametrize("name", ["any bits", "any Δ"])
def test_a_refusal_of_a_large_frame_says_what_is_wrong(monkeypatch, name: str) -> None:
    base, change, post = frames(LARGE, 5)[name]
    body, candidates, _, _ = body_by_numpy(base, change, post)
    large, listed = counts_of(body)
    steps_at = 8 + candidates.size
    changed = {
        "too short": body[:steps_at][:-1],
        "bytes;": body + b"\0",
        "do not add up": struct.pack("<II", large + 1, listed) + body[8:] + bytes(8),
        "leaves the values": body[:steps_at] + b"\xff" * 8 + body[steps_at + 8 :],
    }
    if listed:
        changed["beyond its end"] = body[:-8] + struct.pack("<II", LARGE, 0)
        changed["wider than its dtype"] = body[:-8] + struct.pack("<II", 0, 1 << 16)

    def told(payload: bytes) -> str:
        with pytest.raises(CorruptError) as raised:
            PatchDecoder("BF16", "BF16").frame(payload, base, change, np.empty_like(post))
        return str(raised.value)

    for words, hostile in changed.items():
        payload = Compressor().compress(hostile)
        by_kernels = told(payload)
        assert words in by_kernels
        with monkeypatch.context() as context:
            context.setattr(kernels, "_load", lambda: False)
            assert told(payload) == by_kernels


@pytest.mark.parametrize("name", ["trained", "any Δ"])
def test_the_proof_sees_any_bit_of_any_element(fast, name: str) -> None:
    base, change, post = frames(SIZE, 1)[name]
    body, candidates, made, _ = body_by_numpy(base, change, post)
    data = np.frombuffer(body, np.uint8)
    assert fast.proved(data, candidates, made.copy(), post) == (1, 1)
    for place in range(SIZE):
        other = post.copy()
        other[place] ^= 1 << place % 16
        assert fast.proved(data, candidates, made.copy(), other) == (1, 0)
