"""``python -m jv5kit``."""

from jv5kit.cli import main

if __name__ == "__main__":
    main()
