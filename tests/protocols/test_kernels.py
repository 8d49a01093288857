"""The kernels against numpy and Python integers, at sizes around the edges of words, tiles and blocks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.protocols import bitplanes, kernels
from tercet.protocols.kernels import Words

SIZES = st.sampled_from([0, 1, 2, 63, 64, 65, 127, 1000, 4095, 4096, 4097, 9000])
SEEDS = st.integers(0, 2**32)
SIDES = st.integers(0, 20)


def words(seed: int, *shape: int) -> Words:
    """Uniform words, with the extremes that wrap and sign errors need mixed in."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    extreme = rng.choice(
        np.array([0, 1, 2**21, 2**32, 2**43, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64), shape
    )
    return np.where(rng.random(shape) < 0.2, extreme, drawn)


def exact_matmul(a: Words, b: Words) -> Words:
    product = (
        a.astype(object) @ b.astype(object)
        if a.shape[1]
        else np.zeros((a.shape[0], b.shape[1]), dtype=object)
    )
    return np.array(product % 2**64, dtype=np.uint64).reshape(a.shape[0], b.shape[1])


@settings(deadline=None)
@given(SEEDS, SIZES, st.integers(0, 64))
def test_planes_hold_the_bits(seed, n, bits):
    x = words(seed, n)
    planes = bitplanes.to_planes(x, bits)
    assert planes.shape == (bits, -(-n // 64))
    for b in range(bits):
        np.testing.assert_array_equal(bitplanes.unpack_bits(planes[b], n), (x >> np.uint64(b)) & np.uint64(1))
    padding = np.uint64((1 << 64) - (1 << (n % 64))) if n % 64 else np.uint64(0)
    assert not (planes[:, -1:] & padding).any()
    low = np.uint64(2**bits - 1)
    np.testing.assert_array_equal(bitplanes.from_planes(planes, n), x & low)


@settings(deadline=None)
@given(SEEDS, SIZES)
def test_all_planes_round_trip(seed, n):
    x = words(seed, n)
    np.testing.assert_array_equal(bitplanes.from_planes(bitplanes.to_planes(x), n), x)


def test_planes_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="65"):
        bitplanes.to_planes(words(0, 3), 65)
    with pytest.raises(ValueError, match="do not hold 65"):
        bitplanes.from_planes(words(0, 64, 1), 65)
    with pytest.raises(ValueError, match="do not hold 65"):
        bitplanes.unpack_bits(words(0, 1), 65)


@settings(deadline=None)
@given(SEEDS, SIZES, st.sampled_from([np.bool_, np.uint8]))
def test_bits_pack_and_unpack(seed, n, dtype):
    bits = (np.random.default_rng(seed).random(n) < 0.5).astype(dtype)
    packed = bitplanes.pack_bits(bits)
    assert packed.shape == (-(-n // 64),)
    expected = sum(int(bit) << i for i, bit in enumerate(bits))
    assert sum(int(word) << (64 * i) for i, word in enumerate(packed)) == expected
    np.testing.assert_array_equal(bitplanes.unpack_bits(packed, n), bits.astype(np.uint8))


@settings(deadline=None)
@given(SEEDS, SIZES)
def test_permutation_is_fisher_yates(seed, n):
    random = words(seed, n)
    expected = list(range(n))
    for i in range(n - 1, 0, -1):
        j = int(random[i]) * (i + 1) >> 64
        expected[i], expected[j] = expected[j], expected[i]
    assert kernels.permutation(random).tolist() == expected


def test_permutations_of_four_are_equally_likely():
    random = np.random.default_rng(7).integers(0, 2**64, size=(24_000, 4), dtype=np.uint64)
    seen, counts = np.unique([kernels.permutation(row) for row in random], axis=0, return_counts=True)
    assert len(seen) == 24
    # Chi-squared with 23 degrees of freedom: above 70 with probability 1e-6. The seed is fixed.
    assert ((counts - 1000) ** 2 / 1000).sum() < 70


@settings(deadline=None)
@given(SEEDS, st.integers(0, 4), st.integers(1, 300), SIZES)
def test_take_gathers_columns(seed, k, n, m):
    data = words(seed, k, n)
    index = np.random.default_rng(seed).integers(0, n, m)
    np.testing.assert_array_equal(kernels.take_columns(data, index), data[:, index])
    out = np.empty((k, m), dtype=np.uint64)
    assert kernels.take_columns(data, index, out) is out
    np.testing.assert_array_equal(out, data[:, index])


@pytest.mark.parametrize("outside", [-1, 5, 2**62])
def test_take_refuses_columns_outside(outside):
    with pytest.raises(IndexError, match="5 columns"):
        kernels.take_columns(words(0, 2, 5), np.array([0, outside]))


@settings(deadline=None)
@given(SEEDS, SIZES)
def test_local_products(seed, n):
    x0, x1, y0, y1, a, b = words(seed, 6, n)
    out = np.empty(n, dtype=np.uint64)
    product, conjunction = x0 * y0 + x0 * y1 + x1 * y0, (x0 & y0) ^ (x0 & y1) ^ (x1 & y0)
    np.testing.assert_array_equal(kernels.mul3(x0, x1, y0, y1, out), product)
    np.testing.assert_array_equal(kernels.mul3_zero(x0, x1, y0, y1, a, b, out), product + a - b)
    np.testing.assert_array_equal(kernels.and3(x0, x1, y0, y1, out), conjunction)
    np.testing.assert_array_equal(kernels.and3_zero(x0, x1, y0, y1, a, b, out), conjunction ^ a ^ b)
    expected = product + a - b
    np.testing.assert_array_equal(kernels.mul3_zero(x0, x1, y0, y1, a, b, a), expected)


def test_local_products_keep_shapes_and_refuse_unlike_ones():
    x = words(0, 3, 5)
    out = np.empty((3, 5), dtype=np.uint64)
    np.testing.assert_array_equal(kernels.mul3(x, x, x, x, out), x * x * np.uint64(3))
    with pytest.raises(ValueError, match="sizes must agree"):
        kernels.mul3(x, x, x, x[:2], out)
    with pytest.raises(ValueError, match="contiguous"):
        kernels.and3(x, x, x, x, out.T)


def test_inputs_may_be_read_only_and_unaligned():
    x = words(0, 2, 100)
    received = np.frombuffer(bytes(3) + x.tobytes(), dtype=np.uint8)[3:].view(np.uint64).reshape(2, 100)
    assert not received.flags.writeable
    assert not received.flags.aligned
    out = np.empty(200, dtype=np.uint64)
    np.testing.assert_array_equal(
        kernels.mul3(received, x, x, received, out).reshape(2, 100), x * x * np.uint64(3)
    )
    np.testing.assert_array_equal(bitplanes.to_planes(received), bitplanes.to_planes(x))
    np.testing.assert_array_equal(kernels.ring_dot(received, received), kernels.ring_dot(x, x))
    np.testing.assert_array_equal(kernels.take_columns(received, np.array([5, 5, 0])), x[:, [5, 5, 0]])


@settings(deadline=None)
@given(SEEDS, SIDES, SIDES, SIDES)
def test_matrix_products_of_any_shape(seed, m, k, n):
    a0, a1 = words(seed, 2, m, k)
    b0, b1 = words(seed + 1, 2, k, n)
    product, replicated = exact_matmul(a0, b0), exact_matmul(a0, b0 + b1) + exact_matmul(a1, b0)
    np.testing.assert_array_equal(kernels.ring_matmul(a0, b0), product)
    np.testing.assert_array_equal(kernels.ring_dot(a0, b0.T), product)
    np.testing.assert_array_equal(kernels.matmul3(a0, a1, b0, b1), replicated)
    np.testing.assert_array_equal(kernels.dot3(a0, a1, b0.T, b1.T), replicated)


@settings(deadline=None, max_examples=10)
@given(
    SEEDS,
    st.sampled_from(
        [(1, 7, 9001), (3, 9001, 1), (2, 9001, 30), (70, 80, 90), (33, 2100, 65), (17, 17, 2050)]
    ),
)
def test_matrix_products_across_blocks(seed, shape):
    m, k, n = shape
    a0, a1 = words(seed, 2, m, k)
    b0, b1 = words(seed + 1, 2, k, n)
    replicated = a0 @ (b0 + b1) + a1 @ b0
    np.testing.assert_array_equal(kernels.ring_matmul(a0, b0), a0 @ b0)
    np.testing.assert_array_equal(kernels.ring_dot(a0, b0.T), a0 @ b0)
    np.testing.assert_array_equal(kernels.matmul3(a0, a1, b0, b1), replicated)
    np.testing.assert_array_equal(kernels.dot3(a0, a1, b0.T, b1.T), replicated)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names processors of one kind")
@pytest.mark.parametrize("features", ["", "+avx,+avx2"])
def test_matrix_products_on_processors_of_fewer_vectors(features, tmp_path):
    from llvmlite import binding

    have = binding.get_host_cpu_features()
    if not all(have.get(feature.lstrip("+")) for feature in features.split(",") if feature):
        pytest.skip("this processor has no such vectors")
    script = (
        "import numpy as np\n"
        "from tercet.protocols import kernels\n"
        "draw = np.random.default_rng(9).integers\n"
        "a, b = (draw(0, 2**64, shape, dtype=np.uint64) for shape in [(7, 70), (70, 77)])\n"
        "assert np.array_equal(kernels.ring_matmul(a, b), a @ b)\n"
    )
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": features or "+sse2",
    }
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_matrix_products_refuse_unlike_sides():
    with pytest.raises(ValueError, match="do not fit"):
        kernels.ring_matmul(words(0, 2, 3), words(0, 4, 2))
    with pytest.raises(ValueError, match="do not fit"):
        kernels.dot3(words(0, 2, 3), words(0, 2, 3), words(0, 2, 4), words(0, 2, 4))


def test_a_cold_cache_is_compiled_once(tmp_path):
    source = tmp_path / "once.py"
    source.write_text(
        "from tercet.compiled import INT64, kernel\n"
        "@kernel(INT64)\n"
        "def twice(x):\n"
        "    return x + x\n"
        "assert twice(21) == 42\n"
        "print(int(twice.compiled_here))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import once"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert sorted(outputs) == ["0", "0", "1"]


def test_kernels_are_loaded_without_scipy_which_is_there_afterwards():
    pytest.importorskip("scipy")
    script = (
        "import sys\n"
        "import numpy as np\n"
        "from tercet.compiled import load_all, without_scipy\n"
        "from tercet.protocols import kernels\n"
        "with without_scipy():\n"
        "    load_all()\n"
        "assert not [name for name in sys.modules if name.startswith('scipy')]\n"
        "a, b = np.arange(1, 7, dtype=np.uint64).reshape(2, 3), np.eye(3, dtype=np.uint64)\n"
        "assert np.array_equal(kernels.ring_matmul(a, b), a)\n"
        "import scipy.linalg\n"
        "with without_scipy():\n"
        "    assert sys.modules['scipy'] is scipy\n"
        "assert sys.modules['scipy'] is scipy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_who_compiles_says_so_once(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from tercet.compiled import INT64, kernel, load_all\n"
        + "".join(f"@kernel(INT64)\ndef add_{n}(x):\n    return x + {n}\n" for n in range(3))
        + "load_all()\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mine"]
    said = [
        subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].count("\n") == 1
    assert said[0].startswith("Tercet compiles its numerical kernels for this machine, once")
    assert said[1] == ""
