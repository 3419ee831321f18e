"""A function for tests of experiments.render and of docs/renderers.md."""


def convert(value: float) -> str:
    """Converts kilometres to miles."""
    return f"{value / 1.609344:.1f}"
