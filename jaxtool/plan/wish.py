"""What a person says of a new run; the rest is found (`new_run`)."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person says; None: it is found."""

    model: str  # a name of weights
    data: str  # NAME, NAME=FILE, or FILE
    recipe: str
    hardware: str
    layout: str | None = None
    judge: str | None = None
    response_tokens: int | None = None
    prompt_tokens: int | None = None  # longer ones are left out
    steps: int | None = None
    problems_per_step: int | None = None
    samples: int | None = None
    learning_rate: float | None = None
    lora: bool = False
    int8: bool = False  # the decoder's weights and cache
    adam8bit: bool = False
    search: tuple[str, ...] = ()  # addresses of search servers
    corpus: str = ""  # or: of a server of the run's own
