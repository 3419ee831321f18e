"""Every parameter has a place in the files, and any part of it is read as the whole would be cut."""

import jax
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, random_params
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.model.weight_layout import LAYOUTS, Layout, from_file, leaves, to_file


class OneTensor:
    """A file with one tensor."""

    def __init__(self, stored: np.ndarray):
        self.stored = stored
        self.names = ["it"]

    def tensor_name(self, layout: Layout) -> str:
        return "it"

    def shape(self, name: str) -> tuple[int, ...]:
        return self.stored.shape

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        return self.stored[rows] if self.stored.ndim == 1 else self.stored[rows, columns]


def test_every_parameter_of_every_family_has_a_layout():
    names = {leaf.name for config in FAMILIES.values() for leaf in leaves(config)}
    assert names == set(LAYOUTS)


def test_a_kernel_lies_in_the_file_as_out_times_in():
    kernel = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # [D, N, H]
    stored = to_file("layers/attention/query/kernel", kernel)
    assert stored.shape == (12, 2)
    np.testing.assert_array_equal(stored[3 * 1 + 1], kernel[:, 1, 0])  # row n·H + h: n=1, h=0
    output = np.arange(3 * 4 * 2).reshape(3, 4, 2)  # [N, H, D]
    np.testing.assert_array_equal(
        to_file("layers/attention/output/kernel", output)[1], output[:, :, 1].ravel()
    )


@pytest.mark.parametrize("leaf", leaves(FAMILIES["qwen2"]) + leaves(FAMILIES["qwen3"]), ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_part_is_read_as_the_whole_would_be_cut(leaf, data):
    whole = np.random.default_rng(0).standard_normal(leaf.tensor_shape)
    index = []
    for size in leaf.tensor_shape:
        start = data.draw(st.integers(0, size - 1))
        index.append(slice(start, data.draw(st.integers(start + 1, size))))
    stored = to_file(leaf.name, whole)
    assert stored.shape == leaf.file_shape()
    part = from_file(leaf.name, OneTensor(stored), None, leaf.tensor_shape, tuple(index))
    np.testing.assert_array_equal(part, whole[tuple(index)])


def test_leaf_shapes_are_those_of_the_parameters():
    for config in FAMILIES.values():
        shapes = [leaf.shape for leaf in leaves(config)]
        assert shapes == [x.shape for x in jax.tree.leaves(random_params(config))]
