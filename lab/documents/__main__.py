"""`python -m lab.documents`: write docs/schemas/ anew from the models."""

from __future__ import annotations

from lab.documents import schemas

if __name__ == "__main__":
    for path in schemas.write():
        print(path)
