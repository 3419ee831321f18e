"""The command judge; its flags and what it does are in jaxtool/cli/judge.py."""

from jaxtool.cli.judge import entry, main

if __name__ == "__main__":
    entry.run(main)
