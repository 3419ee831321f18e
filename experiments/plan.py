"""The command plan; its flags and what it does are in jaxtool/cli/plan.py."""

from jaxtool.cli.plan import entry, main

if __name__ == "__main__":
    entry.run(main)
