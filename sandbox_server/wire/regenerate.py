"""Regenerates the committed stubs from sandbox.proto: `python -m sandbox_server.wire.regenerate`.

Needs grpcio-tools (extra `test`). Does not run at import or build time.
"""

import pathlib
import sys
import tempfile

WIRE = pathlib.Path(__file__).parent
PROTO = "sandbox_server/wire/sandbox.proto"
OUTPUTS = ("sandbox_pb2.py", "sandbox_pb2.pyi", "sandbox_pb2_grpc.py")


def generate(root: pathlib.Path) -> dict[str, str]:
    """Text of each stub, generated below `root`."""
    from grpc_tools import protoc  # the only user of an optional dependency

    source = WIRE.parent.parent
    code = protoc.main(
        [
            "protoc",
            f"-I{source}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            str(source / PROTO),
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with {code=}")
    return {name: (root / "sandbox_server/wire" / name).read_text("utf-8") for name in OUTPUTS}


def main() -> int:
    with tempfile.TemporaryDirectory() as root:
        for name, text in generate(pathlib.Path(root)).items():
            (WIRE / name).write_text(text, "utf-8")
            print(f"wrote {WIRE / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
