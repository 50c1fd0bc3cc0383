"""`python -m rlhf.data look <file, folder or hub name>`: what is in it, and the command that trains on it."""

import argparse
import sys

from rlhf.records import RecordError


def main() -> int:
    """Print what was found; 1 where there is nothing to read."""
    parser = argparse.ArgumentParser(prog="python -m rlhf.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("look", help="show records, counts and what to look at")
    looking.add_argument("place", help="a file, a folder, or owner/name on the Hugging Face hub")
    place = parser.parse_args().place
    print(f"looking at {place} ...", flush=True)
    from rlhf.data.look import is_hub_name, look

    try:
        for line in look(place, hub=is_hub_name(place)):
            print(line)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
