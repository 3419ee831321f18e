"""Where an MCP server is: a command to start, or a URL. Knows no protocol.

Nothing secret stands in a run file: `url` and values of `env` and `headers` name environment variables, as in
"Bearer ${TOKEN}", which are read when a connection opens. Messages show the names.
"""

import dataclasses
import os
import re
import shlex
import shutil
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_WRAPPER = Path(__file__).with_name("ends_with_parent.py")
Pairs = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class McpEndpoint:
    """A command or a URL, never both. Hashable: two that are equal are the same server."""

    command: tuple[str, ...] = ()
    env: Pairs = ()
    cwd: str = ""
    url: str = ""
    headers: Pairs = ()
    start_timeout_s: float = 60.0

    @property
    def title(self) -> str:
        """For messages: MCP server 'python my_server.py'."""
        return f"MCP server {self.url or shlex.join(self.command)!r}"

    def check(self) -> None:
        """Raises ValueError, in one line, for what needs no server to be seen."""
        if bool(self.command) == bool(self.url):
            raise ValueError(
                f"Mcp.command = {shlex.join(self.command)!r} and Mcp.url = {self.url!r}: give one of them"
            )
        if self.url:
            self._check_url()
        else:
            self._check_command()

    def read_url(self) -> str:
        """Raises ValueError for a variable that is not set."""
        return self._read("Mcp.url", self.url)

    def read_headers(self) -> dict[str, str]:
        """Raises ValueError for a variable that is not set."""
        return {name: self._read(f"Mcp.headers: {name}", value) for name, value in self.headers}

    def read_env(self) -> dict[str, str]:
        """Raises ValueError for a variable that is not set."""
        return {name: self._read(f"Mcp.env: {name}", value) for name, value in self.env}

    def started_by(self, inherited: Mapping[str, str]) -> list[str]:
        """The program and its arguments, such that it ends with this process where the system can do that.

        Args:
          inherited: environment of the server.

        Raises:
          ValueError: there is no such program.
        """
        name, *arguments = self.command
        if os.sep in name:
            found = Path(self.cwd or ".") / name
            is_there = os.access(found, os.X_OK) and found.is_file()
        else:
            is_there = shutil.which(name, path=inherited.get("PATH")) is not None
        if not is_there:
            where = f"from {self.cwd or os.getcwd()}" if os.sep in name else "in PATH"
            raise ValueError(
                f"{self.title}: command not found: {name!r} {where}: install it or write its whole path"
            )
        if not sys.platform.startswith("linux"):
            return [name, *arguments]
        own = [sys.executable, "-I", "-S", str(_WRAPPER), str(os.getpid())]
        return [*own, name, *arguments]

    def _check_url(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"Mcp.url = {self.url!r}: write http://HOST:PORT/PATH, or https://")
        if parts.username or parts.password:
            raise ValueError(
                "Mcp.url holds a user or a password: leave it out and set Mcp.headers = "
                '(("Authorization", "Basic ${VARIABLE}"),)'
            )
        if self.env or self.cwd:
            raise ValueError("Mcp.env and Mcp.cwd are for a command: leave them out beside Mcp.url")
        for name, value in self.headers:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"Mcp.headers: {name!r} is no name of a header")
            if not _VARIABLE.search(value):
                raise ValueError(
                    f"Mcp.headers: the value of {name!r} must name an environment variable, as in "
                    '"Bearer ${TOKEN}": run files and their records hold no secrets'
                )

    def _check_command(self) -> None:
        if self.headers:
            raise ValueError("Mcp.headers are for a URL: a command gets variables by Mcp.env")
        if self.cwd and not Path(self.cwd).is_dir():
            raise ValueError(f"Mcp.cwd = {self.cwd!r}: there is no such directory")
        for name, _ in self.env:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"Mcp.env: {name!r} is no name of a variable")

    def _read(self, what: str, value: str) -> str:
        missing = [name for name in _VARIABLE.findall(value) if name not in os.environ]
        if missing:
            raise ValueError(f"{what} needs the environment variable {missing[0]}: set it")
        text = _VARIABLE.sub(lambda match: os.environ[match[1]], value)
        if any(character in text for character in "\0\r\n"):
            raise ValueError(f"{what}: the value holds a line end or a zero byte")
        return text


def split_command(command: str | tuple[str, ...]) -> tuple[str, ...]:
    """Words of a command as a shell splits them. Raises ValueError for a quote that nothing closes."""
    if not isinstance(command, str):
        return command
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"Mcp.command = {command!r}: {error}") from None
