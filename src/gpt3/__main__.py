"""``python -m gpt3`` is ``gpt3``."""

from gpt3.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
