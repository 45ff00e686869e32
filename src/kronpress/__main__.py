"""`python -m kronpress`: the command, which torchrun starts in several processes; the main one alone prints."""

from __future__ import annotations

import os
from contextlib import redirect_stdout

from kronpress.cli import main
from kronpress.processes import is_main

if __name__ == "__main__":
    if is_main():
        main()
    else:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            main()
