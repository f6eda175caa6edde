"""Colours and PNG encoding of all pictures. Drawn without pyplot, which would keep state in the process."""

import io
from collections.abc import Mapping
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI: Final = 160
BLUE: Final = "#1f5fa8"
ORANGE: Final = "#e08a1e"
GREY: Final = "#8a8a93"
RED: Final = "#b3261e"
SEVERITY_COLOURS: Final[Mapping[str, str]] = {
    "critical": "#8c1d18",
    "high": "#c2410c",
    "medium": "#f2b84b",
    "low": "#5b8fc7",
}
"""Of pictures and pages; any other severity is grey."""
_COLOURS: Final = 128


def png(figure: Figure) -> bytes:
    """Return a figure as PNG with a palette (a third of the bytes of RGB); equal figures give equal bytes.

    Its resolution becomes `DPI`. `savefig` would go through all of it a second time, to have the layout first.
    """
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    content = io.BytesIO()
    picture.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return content.getvalue()


def width_of(content: bytes) -> int:
    """Return the width in CSS pixels (96 per inch) of a PNG that `png` wrote, read from the file's header."""
    return int.from_bytes(content[16:20], "big") * 96 // DPI
