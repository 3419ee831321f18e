"""The command sample; its flags and what it does are in jaxtool/cli/sample.py."""

from jaxtool.cli.sample import entry, main

if __name__ == "__main__":
    entry.run(main)
