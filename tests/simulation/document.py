"""Where simulations write what they found: their tables in docs/method.md."""

import re
import tempfile
from pathlib import Path

import pandas as pd
from filelock import FileLock

METHOD = Path(__file__).parents[2] / "docs/method.md"


def record(name: str, table: pd.DataFrame) -> None:
    """Put a table in place of the one between `<!-- table NAME -->` and `<!-- end -->`."""
    begin, end = f"<!-- table {name} -->", "<!-- end -->"
    markdown = table.to_markdown(index=False, disable_numparse=True)
    print(f"\n{name}\n{markdown}")
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    with FileLock(Path(tempfile.gettempdir()) / "optstudy-method.lock"):  # tests run side by side
        text = METHOD.read_text()
        assert len(block.findall(text)) == 1, f"{METHOD.name} has no place for {begin}"
        METHOD.write_text(block.sub(lambda _: f"{begin}\n{markdown}\n{end}", text))
