"""Streams are told apart by their whole path and are the same for ever."""

import itertools

import jax
import numpy as np

from jaxtool.core import rng
from jaxtool.core.trees import abstract_like, num_parameters

GOLDEN = 3228337087685026517


def test_golden_values_so_that_old_runs_can_be_repeated():
    assert rng.stream_seed(0, "train", 3) == GOLDEN
    assert rng.row_key(0, "train", 3).tolist() == [GOLDEN >> 32, GOLDEN & 0xFFFFFFFF]


def test_paths_make_different_streams():
    paths = itertools.product((0, 1), ("train", "validation"), (0, 1, 10), ("p1", "p10"), (0, 1))
    seeds = [rng.stream_seed(seed, *path) for seed, *path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_key_is_the_key_of_the_same_words():
    data = jax.random.key_data(rng.key(7, "params"))
    np.testing.assert_array_equal(data, rng.row_key(7, "params"))


def test_trees_by_hand():
    tree = {"a": jax.numpy.zeros((2, 3)), "b": jax.numpy.zeros(4, "int32")}
    assert num_parameters(tree) == 10
    shapes = abstract_like(tree)
    assert (shapes["a"].shape, shapes["b"].dtype) == ((2, 3), "int32")
    assert shapes["a"].sharding == tree["a"].sharding
