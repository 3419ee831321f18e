"""Which code computes attention, for training and over the decoder's cache: one choice, one place.

"xla" runs everywhere and is what the others are tested against. "pallas_tpu" is splash attention for
training and `jaxtool.model.pallas_attention` over the cache. For NVIDIA GPUs "cudnn" is for training and "pallas_gpu"
(`jaxtool.model.pallas_gpu_attention`) for decoding, both on request alone: nobody has measured them here.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import cached_attention, segment_mask
from jaxtool.model.blockwise_attention import row_attention
from jaxtool.model.cache_kernel import LANES
from jaxtool.model.config import AttentionBackend, ModelConfig
from jaxtool.model.kv_cache import LayerCache, write_values
from jaxtool.model.pallas_attention import flash_cached_attention, flash_writing_attention
from jaxtool.model.pallas_gpu_attention import head_obstacle, split_cached_attention
from jaxtool.model.remat import keep_attention
from jaxtool.model.splash_attention import splash_attention
from jaxtool.model.split_attention import split_attention
from jaxtool.parallel.axis_rules import Sharding

Attend = Callable[[Array, Array, Array], Array]

_CUDNN_WIDEST_HEAD = 128
# Of a layer's keys on a device, in float32. Fewer stay near a core, where the other order saves a fifth and not
# half (`benchmarks/cache_attention.py`); and every recorded run of the study would be another by its rounding.
_NEAR_KEY_BYTES = 1 << 20
_SELECTED_COLUMNS = 8  # one comparison each for every position


def training_backend(config: ModelConfig, length: int, sharding: Sharding) -> AttentionBackend:
    """The backend of rows of `length` tokens on this mesh; never "auto".

    Raises:
      ValueError: `config.attention` names one that the platform or the shapes do not allow.
    """
    platform = sharding.mesh.devices.flat[0].platform
    obstacles = {
        "xla": None,
        "pallas_tpu": _needs("tpu", platform)
        or _lanes(head_dim=config.head_dim, length=length // sharding.parts("queries")),
        "cudnn": _needs("gpu", platform) or _cudnn_obstacle(config, sharding),
        "pallas_gpu": "it has no gradient: DecoderNumerics.attention takes it",
    }
    # cuDNN only on request: nobody has measured it here.
    return _choose(config.attention, obstacles, ("pallas_tpu", "xla"), "training")


def cached_backend(config: ModelConfig, positions: int, sharding: Sharding) -> AttentionBackend:
    """The backend over `positions` cache positions on this mesh; never "auto".

    Raises:
      ValueError: `config.attention` names one that the platform or the shapes do not allow.
    """
    platform = sharding.mesh.devices.flat[0].platform
    obstacles = {
        "xla": None,
        "pallas_tpu": _needs("tpu", platform)
        or _lanes(head_dim=config.head_dim, cache_positions=positions),
        "cudnn": "it has no kernel over a cache",
        "pallas_gpu": _needs("gpu", platform) or head_obstacle(config.head_dim),
    }
    # The GPU's kernel only on request: nobody has measured it here.
    return _choose(config.attention, obstacles, ("pallas_tpu", "xla"), "decoding")


def training_attention(
    config: ModelConfig,
    segment_ids: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    sharding: Sharding,
    prefix_ids: Int[Array, "B T"] | None = None,
) -> Attend:
    """q [B, T, N, H], k and v [B, T, K, H] -> [B, T, N, H] under the mask of packed segments.

    What it returns is marked by `remat.keep_attention`; the TPU kernel marks its residuals, of which the output is one.

    Args:
      prefix_ids: as for `segment_mask`.
    """
    backend = training_backend(config, segment_ids.shape[1], sharding)
    if backend == "pallas_tpu":
        return functools.partial(
            splash_attention, segment_ids=segment_ids, prefix_ids=prefix_ids, sharding=sharding
        )
    attend: Attend = functools.partial(
        row_attention,
        segment_ids=segment_ids,
        positions=positions,
        attention_block=config.attention_block,
        prefix_ids=prefix_ids,
    )
    if sharding.parts("queries") > 1:
        places = segment_ids, positions
        attend = split_attention(config.attention_block, places, sharding, prefix_ids)
    elif backend == "cudnn":
        mask = segment_mask(segment_ids, positions, None, prefix_ids)
        attend = functools.partial(fused_attention, mask=mask, implementation="cudnn")
    return lambda q, k, v: keep_attention(attend(q, k, v))


def attend_to_cache(
    q: Float[Array, "B C N H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    config: ModelConfig,
    sharding: Sharding,
) -> Float[Array, "B C N H"]:
    """`cached_attention` by the backend that `config.attention` asks for."""
    backend = cached_backend(config, cache.k.shape[2], sharding)
    if backend == "xla":
        keys_first = keys_go_first(q, cache, sharding)
        return cached_attention(q, cache, positions, keys_first=keys_first)
    kernel = split_cached_attention if backend == "pallas_gpu" else flash_cached_attention
    if sharding.mesh.size == 1:
        return kernel(q, cache, positions)
    rules, (heads, kv_heads) = sharding.rules, sharding.mapped_heads
    queries = rules.spec("batch", None, heads, None)
    cache_specs = jax.tree.map(
        lambda x: rules.spec("batch", kv_heads, *(None,) * (x.ndim - 2)), cache
    )
    return jax.shard_map(
        kernel,
        mesh=sharding.mesh,
        in_specs=(queries, cache_specs, rules.spec("batch", None)),
        out_specs=queries,
        check_vma=False,
    )(q, cache, positions)


def write_and_attend(
    q: Float[Array, "B 1 N H"],
    k: Float[Array, "B 1 K H"],
    v: Float[Array, "B 1 K H"],
    cache: LayerCache,
    positions: Int[Array, "B 1"],
    sharding: Sharding,
) -> tuple[Float[Array, "B 1 N H"], LayerCache]:
    """Writes one token a row into an int8 cache and attends to it by the TPU kernel, which writes the scales."""
    cache, new_scales = write_values(cache, k, v, positions)
    if sharding.mesh.size == 1:
        return flash_writing_attention(q, cache, positions, new_scales)
    rules, (heads, kv_heads) = sharding.rules, sharding.mapped_heads
    queries, of_token = rules.spec("batch", None, heads, None), rules.spec("batch", kv_heads)
    cache_specs = jax.tree.map(
        lambda x: rules.spec("batch", kv_heads, *(None,) * (x.ndim - 2)), cache
    )
    return jax.shard_map(
        flash_writing_attention,
        mesh=sharding.mesh,
        in_specs=(queries, cache_specs, rules.spec("batch", None), (of_token, of_token)),
        out_specs=(queries, cache_specs),
        check_vma=False,
    )(q, cache, positions, new_scales)


def kernel_writes_scales(
    cache: LayerCache, columns: int, view: int, config: ModelConfig, sharding: Sharding
) -> bool:
    """Whether `write_and_attend` serves: a decode step on TPUs over all positions of an int8 cache."""
    is_step = columns == 1 and cache.k_scale is not None and view == cache.k.shape[2]
    return is_step and cached_backend(config, view, sharding) == "pallas_tpu"


def needs_no_view(positions: int, config: ModelConfig, sharding: Sharding) -> bool:
    """Whether the kernel over the cache takes all positions as they lie: XLA would copy a part of them for it."""
    return cached_backend(config, positions, sharding) == "pallas_gpu"


def keys_go_first(q: Array, cache: LayerCache, sharding: Sharding) -> bool:
    """Whether this is a decoding step on a CPU over keys that its cores' caches do not hold.

    In bfloat16 the other order is the quicker one.
    """
    is_cpu = sharding.mesh.devices.flat[0].platform == "cpu"
    key_bytes = 4 * cache.k.size // sharding.mesh.size
    is_step = q.shape[1] == 1 and q.dtype == jnp.float32
    return is_cpu and is_step and key_bytes > _NEAR_KEY_BYTES


def writes_by_select(columns: int, cache: LayerCache, sharding: Sharding) -> bool:
    """Whether so few new tokens a row go into a cache in bfloat16 on a CPU, where a scatter converts all of it."""
    is_cpu = sharding.mesh.devices.flat[0].platform == "cpu"
    return is_cpu and cache.k.dtype == jnp.bfloat16 and columns <= _SELECTED_COLUMNS


def fused_attention(q: Array, k: Array, v: Array, *, mask: Array, implementation: str) -> Array:
    """`attention` by jax.nn.dot_product_attention."""
    # A query without any key is garbage that no loss counts, but cuDNN must find one: itself.
    mask = mask | jnp.eye(mask.shape[1], dtype=bool)[None]
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask[:, None], implementation="cudnn" if implementation == "cudnn" else "xla"
    )


def _choose(
    asked: AttentionBackend,
    obstacles: dict[str, str | None],
    preferred: tuple[AttentionBackend, ...],
    use: str,
) -> AttentionBackend:
    if asked == "auto":
        return next(name for name in preferred if obstacles[name] is None)
    obstacle = obstacles[asked]
    if obstacle is not None:
        raise ValueError(f"attention={asked!r} cannot serve {use}: {obstacle}; use 'auto' or 'xla'")
    return asked


def _needs(wanted: str, platform: str) -> str | None:
    return None if platform == wanted else f"it needs a {wanted}, the mesh is of {platform} devices"


def _lanes(**sizes: int) -> str | None:
    for name, size in sizes.items():
        if size % LANES:
            return f"{name}={size} is no multiple of {LANES}"
    return None


def _cudnn_obstacle(config: ModelConfig, sharding: Sharding) -> str | None:
    if sharding.parts("queries") > 1:
        return "packed rows are sharded over their tokens (MeshConfig.context)"
    if config.compute_dtype != "bfloat16":
        return f"it takes bfloat16, compute_dtype is {config.compute_dtype}"
    if config.head_dim % 8 or config.head_dim > _CUDNN_WIDEST_HEAD:
        return f"head_dim={config.head_dim} is no multiple of 8 up to {_CUDNN_WIDEST_HEAD}"
    return None
