r"""What of flow logs can identify somebody, and its pseudonyms: columns, file names, cells and names of columns.

A column of `score.pass_through` identifies somebody unless `score.not_identifiers` names it. So does every file name,
except those that Spark, Delta and `jobs/synthesize_night.py` give: people name files after devices, wards and days. A
cell of a feature column that is no number can hold anything, as can the name of a column that nobody declared: of a CSV
file without a header, the first flow is taken for the names.

    find LOGS/event_date=DATE -type f -printf '%P\n' | python -m ids_spark.score.identifiers FILE-OF-KEY

prints the pseudonym beside each name.
"""

import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, TextIO

import pyarrow as pa

from ids_spark.alerts.pseudonyms import REMEDY, KeyUnusable, Pseudonyms, load_key
from ids_spark.base.logs import printable
from ids_spark.base.text import one_line, short, shown
from ids_spark.config.score import ScoreConfig

_SPARK_PART: Final = re.compile(
    r"part-\d{5}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}([-.]c\d{3})?(\.(snappy|gz|zstd|lz4))?\.(parquet|csv)(\.gz)?"
)
_OF_A_WRITER: Final = re.compile(r"_SUCCESS|flows-\d{5}\.parquet|_delta_log/\d{20}\.(json|checkpoint\.parquet)")
_DAY: Final = r"\d{4}[\W_]?\d{1,2}[\W_]?\d{1,2}|\d{1,2}[\W_]\d{1,2}[\W_]\d{4}"
_DATE: Final = re.compile(
    rf"((event[-_]?)?(date|day|dt|ds)=)?[\W_]*({_DAY})[\W_]*|year=\d{{4}}/month=\d{{1,2}}/day=\d{{1,2}}"
)
_ENDINGS: Final = ("parquet", "csv", "csv.gz", "json", "txt", "crc", "pcap", "pcapng", "pcap.gz", "pcapng.gz")


@dataclass(frozen=True)
class Identifiers:
    """The identifiers of flow logs, and their pseudonyms; without a key, everything is returned as it is.

    Attributes:
        names: Columns whose values identify somebody.
        pseudonyms: The key; None: identifiers stay as they are.
        declared: Names of columns that the settings name, so that they are no values.
    """

    names: tuple[str, ...] = ()
    pseudonyms: Pseudonyms | None = None
    declared: frozenset[str] = frozenset()

    @property
    def hides(self) -> bool:
        """Whether there is a key, so that identifiers are replaced."""
        return self.pseudonyms is not None

    @property
    def key_id(self) -> str | None:
        """An id of the key; None without one."""
        return None if self.pseudonyms is None else self.pseudonyms.key_id

    def notes(self) -> list[str]:
        """Return a note for the audit on the key; none without one."""
        return [f"identifiers are stored as pseudonyms under the key {self.key_id}"] if self.hides else []

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns whose values are replaced; none without a key."""
        return self.names if self.pseudonyms is not None else ()

    def values(self, column: str, plain: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """Return the values of a column, replaced if it is an identifier; null stays null, empty text empty."""
        if self.pseudonyms is None or column not in self.names:
            return plain
        return self.pseudonyms.pseudonymised(plain)

    def columns(self, table: pa.Table) -> pa.Table:
        """Return a table of pass-through columns with every identifier replaced by its pseudonym."""
        for place, name in enumerate(table.column_names):
            if name in self.hidden:
                table = table.set_column(place, name, self.values(name, table[name]))
        return table

    def file(self, name: str) -> str:
        """Return the name of a file below the folder of its night: its pseudonym, with the ending of the name.

        Names that programs give to their files stay as they are.
        """
        if self.pseudonyms is None or _SPARK_PART.fullmatch(name) or _OF_A_WRITER.fullmatch(name):
            return name
        ending = max((each for each in _ENDINGS if name.lower().endswith(f".{each}")), key=len, default="")
        return self.pseudonyms.of(name) + (f".{ending}" if ending else "")

    def folder(self, name: str) -> str:
        """Return the name of a folder of the flow logs: its pseudonym, unless it is a date in any spelling."""
        return name if self.pseudonyms is None or _DATE.fullmatch(name) else self.pseudonyms.of(name)

    def cell(self, text: str) -> str:
        """Return a cell of a feature column that is no number as its pseudonym; empty text stays empty."""
        return text if self.pseudonyms is None else self.pseudonyms.of(text)

    def column(self, name: str) -> str:
        """Return the name of a column of a file: its pseudonym, unless the settings name the column."""
        return short(name) if self.pseudonyms is None or name in self.declared else self.pseudonyms.of(name)

    def kind(self, kind: pa.DataType) -> str:
        """Return the type of a column as text: with a key without the names of its fields."""
        return short(str(kind)) if self.pseudonyms is None else str(kind).split("<", 1)[0]

    def error(self, error: BaseException) -> str:
        """Return the text of an error of a reader in one line: with a key only its class, as it can quote cells."""
        return one_line(error) if self.pseudonyms is None else type(error).__name__

    def require_key(self, found: Collection[str], where: str, settings: ScoreConfig) -> None:
        """Check that there is a key if flow logs have columns that identify somebody.

        Args:
            found: Columns of the flow logs.
            where: Folder of the flow logs.
            settings: With the names of file and environment variable.

        Raises:
            KeyUnusable: there is none.
        """
        plain = [name for name in self.names if name in found]
        if self.pseudonyms is None and plain:
            raise KeyUnusable(
                f"{where}: column(s) {shown(plain)} can identify a device or a person, and there is no key for their"
                f" pseudonyms: score.pseudonym_key_file is not set and the environment variable"
                f" {settings.pseudonym_key_env} is absent or empty; expected a key, columns that identify nobody in"
                f" score.not_identifiers, or score.pseudonymise=[]; {REMEDY}"
            )


PLAIN: Final = Identifiers()
"""Without a key: everything stays as it is."""


def identifiers_of(settings: ScoreConfig, spellings: Iterable[str] = ()) -> Identifiers:
    """Return the identifiers of flow logs by the settings; reads the key.

    Args:
        settings: Of scoring.
        spellings: Further names of columns that are no values.

    Raises:
        KeyUnusable: the key is too short, or users other than its owner may read it, or `score.pseudonymise` names
            columns and there is none.
    """
    declared = frozenset((*settings.pass_through, *settings.not_identifiers, *settings.column_aliases, *spellings))
    return Identifiers(settings.identifiers, load_key(settings), declared)


def main(key_file: str, names: Iterable[str], output: TextIO) -> None:
    """Print the pseudonym of each name and the name, so that whoever has the key finds the file or device again.

    Args:
        key_file: File with the key.
        names: One a line.
        output: Where the lines go.

    Raises:
        KeyUnusable: the key is too short, or users other than its owner may read it.
    """
    key = load_key(ScoreConfig(pseudonym_key_file=key_file))
    for name in (line.rstrip("\n") for line in names):
        output.write(f"{name if key is None else key.of(name)}\t{printable(name)}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected the file of the key, and names on standard input, one a line")
    try:
        main(sys.argv[1], sys.stdin, sys.stdout)
    except KeyUnusable as unusable:
        sys.exit(str(unusable))
