"""`python -m kronpress`: the command, which torchrun can start in several processes."""

from kronpress.cli import main

if __name__ == "__main__":
    main()
