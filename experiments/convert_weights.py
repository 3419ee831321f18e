"""The command convert_weights; its flags and what it does are in jaxtool/cli/convert_weights.py."""

from jaxtool.cli.convert_weights import entry, main

if __name__ == "__main__":
    entry.run(main)
