"""docs/paper_to_code.md: every file, function, recipe and table that it names exists, and no section is left out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper_to_code.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")][2:]
PATHS = sorted(set(re.findall(r"`([\w/-]+(?:\.\w+|/))`", PAGE)))
NAMES = [
    (path, name)
    for _, _, where in ROWS
    for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", where)
    for name in re.findall(r"`(\w+)`", names)
]
SECTIONS = ["2", "2.1", "2.2", "2.3", "2.4", "3", "3.1", "4", "4.1", "4.2", "4.3", "4.4", "4.5"]
SECTIONS += [f"5.{number}" for number in range(1, 7)]
