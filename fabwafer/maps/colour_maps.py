"""The colours of matplotlib's colour maps and colour cycles, as matplotlib 3.11 defines them.

Maps that are grey all along are not listed: greys are told by their rank. Nor are those that end where they begin
(hsv, twilight) and those that repeat (flag, prism), with which nothing can be told, and brg, whose passed dies would be
red and failed ones green.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float32]

MAPS: Final = {
    "Blues": "f7fbff 6aadd5 08306b",
    "BrBG": "543005 f4f4f4 003c30",
    "BuGn": "f7fcfd 65c1a3 00441b",
    "BuPu": "f7fcfd 8c95c5 4d004b",
    "CMRmap": "000000 fe4025 ffffff",
    "GnBu": "f7fcf0 7acbc4 084081",
    "Greens": "f7fcf5 73c375 00441b",
    "OrRd": "fff7ec fb8c58 7f0000",
    "Oranges": "fff5eb fc8c3b 7f2704",
    "PRGn": "40004b f6f6f6 00441b",
    "PiYG": "8e0152 f6f6f6 276419",
    "PuBu": "fff7fb 73a8ce 023858",
    "PuBuGn": "fff7fb 66a8ce 014636",
    "PuOr": "7f3b08 f6f6f6 2d004b",
    "PuRd": "f7f4f9 df64af 67001f",
    "Purples": "fcfbfd 9d99c7 3f007d",
    "RdBu": "67001f f6f6f6 053061",
    "RdGy": "67001f fefefe 1a1a1a",
    "RdPu": "fff7f3 f667a0 49006a",
    "RdYlBu": "a50026 fefec0 313695",
    "RdYlGn": "a50026 fefebd 006837",
    "Reds": "fff5f0 fa6949 67000c",
    "Spectral": "9e0142 fefebe 5e4fa2",
    "Wistia": "e4ff7a ffbc00 fc7f00",
    "YlGn": "ffffe5 77c578 004529",
    "YlGnBu": "ffffd9 40b5c3 081d58",
    "YlOrBr": "ffffe5 fd9828 662505",
    "YlOrRd": "ffffcc fc8c3b 800026",
    "afmhot": "000000 ff8000 ffffff",
    "autumn": "ff0000 ff8000 ffff00",
    "berlin": "9eaffe 190b08 feadad",
    "bone": "000000 707b8f ffffff",
    "bwr": "0000ff fffefe ff0000",
    "cividis": "00224d 7c7b78 fde737",
    "cool": "00ffff 807fff ff00ff",
    "coolwarm": "3a4cc0 dddcdb b30326",
    "copper": "000000 9e633f ffc77e",
    "cubehelix": "000000 a1794a ffffff",
    "gist_earth": "000000 5da04b fdfafa",
    "gist_heat": "000000 c00000 ffffff",
    "gist_ncar": "000080 daff1f fef7fe",
    "gist_rainbow": "ff0028 00ff8b ff00bf",
    "gist_stern": "000000 8080fc ffffff",
    "gnuplot": "000000 b42000 ffff00",
    "gnuplot2": "000000 c829d5 ffffff",
    "hot": "0a0000 ff5b00 ffffff",
    "inferno": "000003 bb3754 fcfea4",
    "jet": "00007f 7cff79 7f0000",
    "magma": "000003 b63679 fbfcbf",
    "managua": "ffcf67 562949 80e7fe",
    "nipy_spectral": "000000 00bc00 cccccc",
    "ocean": "007f00 004080 ffffff",
    "pink": "1e0000 d0ab93 ffffff",
    "plasma": "0c0786 cb4777 eff821",
    "rainbow": "7f00ff 80feb3 ff0000",
    "seismic": "00004c fffdfd 7f0000",
    "spring": "ff00ff ff807f ffff00",
    "summer": "007f66 80bf66 ffff66",
    "terrain": "333399 fefd98 ffffff",
    "turbo": "30123b a4fc3b 7a0402",
    "vanimo": "ffccfc 191512 bdfca5",
    "viridis": "440154 20908c fde724",
    "winter": "0000ff 0080bf 00ff7f",
}
"""Colours at 0, 1/2 and 1: of the values 0, 1 and 2 where all three are drawn."""

NO_ORDER: Final = frozenset(
    {"BrBG", "PRGn", "PiYG", "PuOr", "RdBu", "RdGy", "RdYlBu", "RdYlGn", "Spectral", "berlin", "managua", "vanimo"}
    | {"autumn", "Set1"}
)
"""Maps whose two ends do not tell which of them is the higher value: those that lead from one colour over white or
black to another are used in either direction, and autumn and Set1 begin with red, which otherwise is what failed. With
`coolwarm`, `bwr` and `seismic` the red end is the high one."""

CYCLES: Final = {
    "Accent": "7fc97f beaed4 fdc086 386cb0 666666",
    "Dark2": "1b9e77 d95f02 7570b3 66a61e 666666",
    "Paired": "a6cee3 1f78b4 b2df8a fdbf6f b15928",
    "Pastel1": "fbb4ae b3cde3 ccebc5 fed9a6 f2f2f2",
    "Pastel2": "b3e2cd fdcdac cbd5e8 e6f5c9 cccccc",
    "Set1": "e41a1c 377eb8 4daf4a ff7f00 999999",
    "Set2": "66c2a5 fc8d62 8da0cb a6d854 b3b3b3",
    "Set3": "8dd3c7 ffffb3 bebada b3de69 ffed6f",
    "okabe_ito": "000000 e69f00 56b4e9 f0e442 cc79a7",
    "tab10": "1f77b4 ff7f0e 2ca02c 8c564b 17becf",
    "tab20": "1f77b4 aec7e8 ff7f0e 8c564b 9edae5",
    "tab20b": "393b79 5254a3 6b6ecf e7ba52 de9ed6",
    "tab20c": "3182bd 6baed6 9ecae1 a1d99b d9d9d9",
}
"""The first three colours of each list, and those at 1/2 and 1 of it."""

BLUE_AND_RED: Final = "1f77b4 d62728"
"""The first and the fourth colour of tab10, which are drawn for passed and failed."""


def _colours(table: str) -> Colours:
    return np.array([list(bytes.fromhex(colour)) for colour in table.split()], np.float32)


def _triples() -> Colours:
    found = []
    for low, middle, high in map(_colours, MAPS.values()):
        found += [(low, middle, high), (high, middle, low)]
    for first, second, third, middle, last in map(_colours, CYCLES.values()):
        found += [(first, second, third), (first, middle, last), (last, middle, first)]
    return np.array(found, np.float32)


def _pairs() -> tuple[Colours, NDArray[np.bool_]]:
    found, ordered = [], []
    for name, (low, middle, high) in ((name, _colours(table)) for name, table in MAPS.items()):
        found += [(low, high), (middle, high)]
        ordered += [name not in NO_ORDER, name not in NO_ORDER]
    for name, table in CYCLES.items():
        first, second, third, middle, last = _colours(table)
        found += [(first, second), (first, last), (middle, last), (second, third)]
        ordered += [name not in NO_ORDER] * 4
    found.append(tuple(_colours(BLUE_AND_RED)))
    ordered.append(True)
    return np.array(found, np.float32), np.array(ordered)


TRIPLES: Final = _triples()
"""What the values 0, 1 and 2 are drawn in, float32 [n, 3, 3]: also from the other end of a map (`viridis_r`)."""
_FOUND: Final = _pairs()
PAIRS: Final = _FOUND[0]
"""What the values 1 and 2 are drawn in where 0 is masked, float32 [n, 2, 3]: over the whole map, or over its half."""
ORDERED: Final = _FOUND[1]
"""Which of the pairs tell the higher value by their colours, bool [n]."""
