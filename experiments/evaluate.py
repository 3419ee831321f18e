"""The command evaluate; its flags and what it does are in jaxtool/cli/evaluate.py."""

from jaxtool.cli.evaluate import entry, main

if __name__ == "__main__":
    entry.run(main)
