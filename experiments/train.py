"""The command train; its flags and what it does are in jaxtool/cli/train.py."""

from jaxtool.cli.train import entry, main

if __name__ == "__main__":
    entry.run(main)
