#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")
    from llmproject.commandline import run_command

    run_command(sys.argv)


if __name__ == "__main__":
    main()
