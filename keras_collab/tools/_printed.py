"""How a result prints: as its table, in a terminal, in a file and in a notebook."""

import io

from rich.console import Console
from rich.jupyter import JupyterMixin


class Printed(JupyterMixin):
    """The base class of results, whose `__rich__` returns their table."""

    def __str__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=100, force_terminal=False, force_jupyter=False, highlight=False)
        console.print(self)
        return text.getvalue()
