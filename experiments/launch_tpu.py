"""The command launch_tpu; its flags and what it does are in jaxtool/cli/launch_tpu.py."""

from jaxtool.cli.launch_tpu import entry, main

if __name__ == "__main__":
    entry.run(main)
