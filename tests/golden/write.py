"""Write `expected/` again: python tests/golden/write.py [family ...]

Read the difference before you keep it: each line in it is a change of what is trained.
"""

import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from golden.families import FAMILIES, FOLDER, golden

    for name in sys.argv[1:] or FAMILIES:
        (FOLDER / "expected" / f"{name}.txt").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
