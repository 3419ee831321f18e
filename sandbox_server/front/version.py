"""The version of this server: that of the distribution in which it was installed."""

import importlib.metadata


def version() -> str:
    """As pip shows it; "unknown" where the files were copied and not installed."""
    try:
        return importlib.metadata.version("jaxtool")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
