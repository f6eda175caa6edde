"""Values that files really hold where a number, a time, an identifier or a name is expected."""

from typing import Any, Final

from tests.fuzz.draw import Draw

NUMBERS_AS_TEXT: Final = (
    "", " ", "\t", "nan", "NaN", "NAN", "-nan", "inf", "-inf", "Infinity", "+Infinity", "1e400", "-1e400", "1e-400",
    "1e308", "-1.7976931348623157e308", "5e-324", "0x1F", "1_000", "1,5", "1.234,56", "1 234", "\u0661\u0662",
    "\uff11",
    "\u22125", "+5", "1.", ".5", "1e5", "1E+5", "1d5", "-0", "- 1", "True", "false", "null", "None", "NULL", "N/A",
    "#REF!",
    "=1+1", "@SUM(1)", '"', '""', '"1"', "'1'", '"1', "1\x00", "\x00", "\udcff", "1\udcc3", "\u202e1", "\x1b[31m1",
    "\u2028", "\ufeff1", "1\t", " 1 ", "1;2", "9" * 30, "9" * 400, "1" * 5000, "0." + "0" * 400 + "1", "\U0001f600",
    "%s", "{0}", "\\N", "1/2", "12:30", "2026-03-01", "<b>1</b>", "1e", "e5", "--1", "0b1", "1.2.3", "\u00a01",
    "1\u00a0",
)  # fmt: skip
NUMBERS: Final = (
    float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 1.7976931348623157e308, 5e-324, -0.0, -1.0, -1e-300,
    2.0,
    1.5, 1e16, 1e30, 1e39, 3.5e38, 255.0, 2**53 + 2.0, 2.0**63, -(2.0**63), 1e-20,
)  # fmt: skip
TEXTS: Final = (
    "", " ", "\x00", "a\x00b", "\n", "a\r\nb", "\t", '"', "'", "<script>alert(1)</script>", "{{7*7}}",
    "${jndi:ldap://x}",
    "\x1b[2J", "\u202eabc", "\u2066x", "\ufffe", "\U0010ffff", "\u0301", "\u00e9", "e\u0301", "\u0130\u0131",
    "\u00df",
    "x" * 513, "y" * 20_000, "../../etc/passwd", "=cmd|' /C calc'!A0", "NULL", "nan", "-", "1e5", "1.23456789e+10",
    "12345678900", "12345678900.0", "\u6f22\u5b57", "\U0001f3e5", "%00", "a,b;c|d", "\u2028", "\x85", "\x7f",
    "\\u0000",
)  # fmt: skip
INVALID: Final = (b"\xff", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80abc", b"a\xf0\x9f")
"""Bytes that are not UTF-8."""
TIMES_AS_TEXT: Final = (
    "2026-03-01T10:00:00Z", "2026-03-01 10:00:00", "2026-03-01T10:00:00.123456789+02:00", "2026-03-01", "10:00",
    "now", "",
    "2026-02-30T10:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "2026-03-01T24:00:00Z", "2026-03-01T23:59:60Z", "2026-03-01T10:00:00+99:99", "01/03/2026 10:00", "1772359200",
    "1772359200000", "1772359200.5", "1e400", "\u0662\u0660\u0662\u0666-\u0660\u0663-\u0660\u0661T10:00:00Z",
    "2026-03-01T10:00:00Z\n", "Sun, 01 Mar 2026 10:00:00 GMT", "20260301T100000Z", "x" * 1000,
    "2026-03-01T10:00:00,5Z",
)  # fmt: skip
EPOCHS: Final = (
    0, -1, 1, 1_772_359_200, 1_772_359_200_000, 1_772_359_200_000_000, 1_772_359_200_000_000_000, 2**31, 2**53,
    2**63 - 1,
    -(2**63), 253_402_300_800, -62_135_596_800, 7_258_118_400, 10**15, 10**18,
)  # fmt: skip
ANY: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"),
    float("-inf"), "",
    "x", "\x00", "2026-03-01", "nan", [], [[]], [None], {}, {"a": {}}, [1, "a", None], {"": ""}, "../..", "x" * 5_000,
    [0] * 2_000,
)  # fmt: skip
"""Values for any place of a document."""


def name_variant(draw: Draw, name: str) -> str:
    """Return a column name as other programs write it."""
    return draw.pick(
        (
            name.upper(),
            name.lower(),
            name.replace(" ", "_"),
            name.replace("_", " "),
            f" {name}",
            f"{name} ",
            f'"{name}"',
            f"{name}.1",
            f"{name}_x",
            f"\ufeff{name}",
            name.replace("_", ""),
            name.replace("_", "-"),
            f"flow.{name}",
            name[:-1],
            f"{name}\x00",
            name + "\u200b",
            "",
            f"Unnamed: {draw.rng.randrange(40)}",
            "\x1b[31m" + name,
        )
    )
