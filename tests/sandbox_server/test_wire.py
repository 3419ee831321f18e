"""The committed stubs are what the proto file gives."""

import re

import pytest

from sandbox_server.wire import regenerate


def _without_versions(text: str) -> str:
    """Drops what depends on the generator's version only; the committed one is an old floor."""
    text = re.sub(r"# Protobuf Python Version: .*", "", text)
    text = re.sub(r"Domain\.PUBLIC,\s*\d+,\s*\d+,\s*\d+,", "", text)
    text = re.sub(r"GRPC_GENERATED_VERSION = '.*'", "", text)
    return re.sub(r"^class (\w+)(\(object\))?:", r"class \1:", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", [n for n in regenerate.OUTPUTS if n.endswith("_pb2.py")])
def test_committed_stubs_match_the_proto_file(tmp_path, name):
    generated = regenerate.generate(tmp_path)
    committed = (regenerate.WIRE / name).read_text("utf-8")
    assert _without_versions(committed) == _without_versions(generated[name])


def test_service_stub_names_every_method(tmp_path):
    """The grpc file differs in wording between generator versions; its methods must not."""
    methods = [
        re.findall(r"'(/jaxtool[^']+)'", text)
        for text in (
            regenerate.generate(tmp_path)["sandbox_pb2_grpc.py"],
            (regenerate.WIRE / "sandbox_pb2_grpc.py").read_text("utf-8"),
        )
    ]
    assert methods[0] == methods[1]
    assert len(set(methods[0])) == 7
