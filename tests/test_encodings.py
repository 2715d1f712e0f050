"""A tensor's sparse form gives back the tensor, at the size known before."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_l0.export import encodings
from keras_l0.export.encodings import Encoding, decode, encode, encode_blocks, encode_rows

DTYPES = [np.float32, np.float16, np.int8]


@st.composite
def sparse_arrays(draw: st.DrawFn) -> NDArray[np.floating]:
    """Arrays of any rank up to 6 and any density, dense rows and empty rows among them."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=6, min_side=1, max_side=7))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 2**32 - 1))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.8, 1.0]))
    rng = np.random.default_rng(seed)
    array = rng.normal(size=shape) * 40 * (rng.random(shape) < density)
    for axis in range(len(shape)):
        if draw(st.booleans()):
            emptied = rng.random(shape[axis]) < 0.5
            array = array * np.expand_dims(~emptied, [a for a in range(len(shape)) if a != axis])
    if draw(st.booleans()):  # each value several times, so that zeros come in blocks
        array = array.repeat(
            draw(st.sampled_from([2, 4, 8])), axis=draw(st.integers(0, array.ndim - 1))
        )
    return array.astype(dtype)


def row_major_bytes(array: NDArray[np.floating]) -> int:
    """Bytes of plain CSR over the last dimension, counted independently."""

    def width(largest: int) -> int:
        return 1 if largest < 2**8 else 2 if largest < 2**16 else 4

    stored = max(1, np.count_nonzero(array))
    rows = math.prod(array.shape[:-1])
    return int(
        (rows + 1) * width(stored)
        + stored * width(array.shape[-1] - 1)
        + stored * array.dtype.itemsize
    )


def indices_of(encoding: Encoding) -> list[NDArray[np.integer]]:
    arrays = [a for level in encoding.levels for a in (level.segments, level.indices)]
    return [a for a in arrays if a is not None]


@given(sparse_arrays())
def test_decoding_gives_back_the_same_array(array: NDArray[np.floating]) -> None:
    back = decode(encode(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(sparse_arrays())
def test_the_size_is_that_of_the_parts_and_never_above_row_major(
    array: NDArray[np.floating],
) -> None:
    encoding = encode(array)
    parts = [encoding.values.tobytes(), *(a.tobytes() for a in indices_of(encoding))]
    assert encoding.nbytes == sum(map(len, parts))
    assert encoding.nbytes <= row_major_bytes(array)


@given(sparse_arrays())
def test_the_size_compared_in_the_search_is_the_size_that_results(
    array: NDArray[np.floating],
) -> None:
    """Else the search would choose by a wrong measure without any array being wrong."""
    kept = array != 0
    kept.flat[0] |= not kept.any()
    itemsize = array.dtype.itemsize
    for order, sparse in list(encodings._layouts(array.ndim))[:40]:
        built = encodings._encode_as(array, kept, order, sparse)
        in_use = encodings._positions_in_use(kept)
        expected = encodings._layout_bytes(array.shape, order, sparse, in_use, itemsize)
        assert built.nbytes == expected
        np.testing.assert_array_equal(decode(built), array)


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)]
)
def test_indices_take_the_narrowest_type(size: int, dtype: type) -> None:
    array = np.zeros(size, np.float32)
    array[-1] = 1
    (level,) = encode(array).levels
    assert level.indices is not None
    assert level.segments is not None
    assert level.indices.dtype == dtype
    assert level.segments.dtype == np.uint8


@pytest.mark.parametrize(
    ("count", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_segments_take_the_narrowest_type(count: int, dtype: type) -> None:
    array = np.zeros(2 * count, np.float32)
    array[::2] = 1
    (level,) = encode(array).levels
    assert level.segments is not None
    assert level.segments.dtype == dtype


def test_columns_are_compressed_where_that_is_smaller() -> None:
    array = np.zeros((500, 4), np.float32)
    array[::2] = 1
    assert encode(array).nbytes < row_major_bytes(array) / 1.2
    np.testing.assert_array_equal(decode(encode(array)), array)


def test_empty_rows_cost_nothing() -> None:
    array = np.zeros((10_000, 64), np.float32)
    array[77, 5] = 2.0
    assert encode(array).nbytes <= 12


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_of_zeros_keeps_one_value(dtype: type) -> None:
    """The runtime takes an empty buffer for no constant."""
    encoding = encode(np.zeros((5, 3), dtype))
    assert encoding.values.size <= 3  # where an index costs more than two values, a row
    assert not encoding.values.any()
    np.testing.assert_array_equal(decode(encoding), np.zeros((5, 3), dtype))


def test_negative_zero_is_a_zero_and_nan_is_not() -> None:
    array = np.full((40, 20), -0.0, np.float32)
    array[3, 4] = np.nan
    encoding = encode(array)
    assert encoding.values.size == 1
    back = decode(encoding)
    assert np.isnan(back[3, 4])
    assert not np.signbit(back[back == 0]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stored_negative_zero_becomes_positive(dtype: type) -> None:
    """Even where a dense level stores it, so that a zero has one form in the file."""
    assert not np.signbit(decode(encode(np.full(3, -0.0, dtype)))).any()


def test_values_are_those_of_the_array_bit_for_bit() -> None:
    array = np.array([[0, 6e-8, 0], [0, 65504, -1]], np.float16)
    assert sorted(encode(array).values[encode(array).values != 0]) == [-1, np.float16(6e-8), 65504]


@pytest.mark.parametrize(
    ("array", "received"),
    [
        (np.float32(1).reshape(()), "float32 of shape ()"),
        (np.zeros((0, 3), np.float32), "float32 of shape (0, 3)"),
        (np.zeros((2, 3), np.int32), "int32 of shape (2, 3)"),
    ],
)
def test_what_cannot_be_encoded_is_refused(array: NDArray[np.floating], received: str) -> None:
    with pytest.raises(ValueError, match="Invalid value") as error:
        encode(array)
    assert str(error.value) == (
        "Invalid value for argument `array`. Expected floating numbers or int8 of rank 1 "
        f"or more, not empty. Received: array='{received}'"
    )


@given(
    rows=st.integers(1, 9),
    blocks=st.integers(1, 5),
    size=st.sampled_from([1, 4, 16]),
    density=st.sampled_from([0.0, 0.1, 0.7]),
    seed=st.integers(0, 99),
)
def test_rows_and_blocks_have_the_form_that_the_kernels_ask_for(
    rows: int, blocks: int, size: int, density: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(rows, blocks * size)) * (rng.random((rows, blocks * size)) < density)
    array = array.astype(np.float32)
    by_rows, by_blocks = encode_rows(array), encode_blocks(array, size)
    assert [level.indices is None for level in by_rows.levels] == [True, False]
    assert [level.indices is None for level in by_blocks.levels] == [True, False, True]
    assert by_blocks.levels[2].size == size
    for encoding in (by_rows, by_blocks):
        np.testing.assert_array_equal(decode(encoding), array)
    kept = array.reshape(rows, blocks, size).any(axis=-1).sum()
    assert by_blocks.values.size == max(1, kept) * size


def test_an_incomplete_block_is_refused() -> None:
    """The runtime would drop the columns that are left over."""
    with pytest.raises(ValueError, match="columns that are a multiple of 4"):
        encode_blocks(np.ones((2, 6), np.float32), 4)


def test_zeros_in_blocks_are_stored_as_blocks() -> None:
    array = np.zeros((64, 64), np.float32)
    array[::4, ::8] = 1
    blocks = array.repeat(4, axis=1)
    encoding = encode(blocks)
    assert encoding.block == (1, 4)
    assert encoding.nbytes < encode(array).nbytes + 3 * 4 * np.count_nonzero(array) + 1
    np.testing.assert_array_equal(decode(encoding), blocks)
