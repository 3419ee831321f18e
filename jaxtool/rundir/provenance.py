"""Where figures come from: command, commit, versions, machine. Secrets never.

Not covered: devices, which only jax knows (`run_start`).
"""

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence

# Packages whose version changes numbers or how a run behaves; those that are not installed are left out.
_PACKAGES = (
    *("jaxtool", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("transformers", "tokenizers", "safetensors", "gguf", "gin-config", "math-verify", "grpcio"),
)
# Variables of the environment that change numbers or memory.
_VARIABLES = (
    *("JAX_PLATFORMS", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES"),
    *("JAX_DEFAULT_MATMUL_PRECISION", "XLA_PYTHON_CLIENT_MEM_FRACTION", "NVIDIA_TF32_OVERRIDE"),
)
HIDDEN = "***"
# A value behind a name that means a secret. `max_tokens` and `token_file` mean none.
_NAMED = re.compile(
    r"(?i)((?:[\w.-]*[_-])?(?:api_?key|access_?key|secret|password|passwd|token|credentials?)['\"]?\s*[=:]\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)"
)
_FLAG = re.compile(r"(?i)--?[\w-]*(?:api[_-]?key|secret|password|passwd|(?<![a-z])token)")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")
_IN_URL = re.compile(r"(\w+://)[^/\s:@]*:[^/\s@]*@")
# Keys of Hugging Face, OpenAI and Anthropic, GitHub, AWS and Google, as they look.
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,}|AIza[\w-]{20,})"
)


def without_secrets(text: str) -> str:
    """`text` with passwords, keys and tokens replaced by ***.

    Example: "api_key='abc' max_tokens=5" gives "api_key=*** max_tokens=5".
    """
    text = _IN_URL.sub(rf"\1{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command of this process, or another one, as a shell reads it."""
    words = list(sys.orig_argv if arguments is None else arguments)
    if words and words[0] == sys.orig_argv[0]:
        words[0] = "python"
    if words[:1] == ["python"] and words[1:] and os.path.basename(words[1]) == "jaxtool":
        words[:2] = ["jaxtool"]  # the script of an install
    shown = [
        HIDDEN if before and _FLAG.fullmatch(before) else without_secrets(word)
        for before, word in zip([None, *words], words, strict=False)
    ]
    return shlex.join(shown)


def versions() -> dict[str, str]:
    """Versions by package, Python's first."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, str]:
    """The variables that are set, of those that matter."""
    return {name: without_secrets(os.environ[name]) for name in _VARIABLES if name in os.environ}


def machine() -> dict[str, str | int]:
    """This host: name, processor, cores that this process may use."""
    return {
        "host": platform.node(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 0,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            )
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
