"""The command render; its flags and what it does are in jaxtool/cli/render.py."""

from jaxtool.cli.render import entry, main

if __name__ == "__main__":
    entry.run(main)
