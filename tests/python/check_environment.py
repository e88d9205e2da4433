"""Prints each package of requirements.txt that is not installed in its pinned version."""

import sys
from importlib.metadata import PackageNotFoundError, version

wrong = []
for line in open(sys.argv[1]):
    name, _, pinned = line.partition("#")[0].strip().partition("==")
    if not name:
        continue
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "nothing"
    if found != pinned:
        wrong.append(f"{name}: {pinned} is pinned, {found} is installed")
print("\n".join(wrong), end="")
