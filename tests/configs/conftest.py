"""Hundreds of configurations of the same files: gin's parser reads each file once."""

import functools

import pytest

from jaxtool.config import loader


@pytest.fixture(scope="module", autouse=True)
def _each_text_is_parsed_once():
    parse = loader._statements

    @functools.cache
    def parsed(*arguments):
        return tuple(parse(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_statements", parsed)
        yield
