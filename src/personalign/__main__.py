"""`python -m personalign`, which is how launchers such as accelerate start the command."""

from personalign.cli.main import main

if __name__ == "__main__":
    main()
