"""The file to begin with: an adapter that works, for a stranger's STFT to be put into."""

from __future__ import annotations

import keyword
from pathlib import Path

#: Of what a function takes -> the template of its adapter.
TEMPLATES = {"numpy": "numpy_arrays", "torch": "torch_tensors", "mlx": "mlx_arrays"}


def write_adapter(path: Path, arrays: str = "numpy", command: str = "stft-parity") -> str:
    """Write an adapter that works as it is.

    Args:
        path: of the file, which must not exist; its name is that of a module.
        arrays: what the functions take, one of ``TEMPLATES``.
        command: that compares the candidate which is named next.

    Returns:
        The command that compares it.

    Raises:
        ValueError: there is such a file, or its name is no module's.
        OSError: it cannot be written.
    """
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{path}: name it as a module is named, my_parity.py for example")
    template = Path(__file__).parent / "templates" / f"{TEMPLATES[arrays]}.py"
    run = f"{command} {name} --html {name}.html"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template.read_text(encoding="utf-8").replace("COMMAND", run))
    except FileExistsError:
        raise ValueError(f"{path} is there already; it was left as it is") from None
    return run
