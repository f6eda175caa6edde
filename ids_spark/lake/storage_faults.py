"""What a file system or object store reports when it refuses or does not answer, as a message for people.

pyarrow raises `OSError` for both, with the code of the store in its text; from a task it arrives as text within an
error of Spark. The clients themselves repeat what may succeed (`lake/filesystem`).
"""

import errno
import re
from typing import Final

from ids_spark.base.errors import InputError, Interrupted, Message

_REPORTED: Final = re.compile(
    r"^.*?((?:When [^\n]*?: )?AWS Error (\w+)(?: \(HTTP status (\d+)\))?[^\n]*)", re.MULTILINE
)
_OF_HDFS: Final = re.compile(r"^.*?((?:Opening )?HDFS [^\n]*?Detail: \[errno (\d+)\][^\n]*)", re.MULTILINE)
_OF_SYSTEM: Final = re.compile(r"^.*?(\[Errno (?:1|13|30)\] [^\n]*)", re.MULTILINE)
"""What a file system reports that does not permit something: EPERM, EACCES, EROFS."""
_REFUSED: Final = frozenset(
    (
        *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "EXPIRED_TOKEN"),
        *("INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN", "UNRECOGNIZED_CLIENT", "NOT_INITIALIZED"),
        *("INCOMPLETE_SIGNATURE", "MISSING_PARAMETER", "OPT_IN_REQUIRED", "REQUEST_EXPIRED"),
    )
)
_ABSENT: Final = frozenset(("NO_SUCH_BUCKET",))
_LONGEST: Final = 300


class StorageRefused(InputError):
    """Raised when a store does not accept the credentials or permit the access, or has no such bucket."""


def explained(error: BaseException, root: str) -> Message | None:
    """Return the message for an error of an object store or HDFS, or for a refusal of a local file system, else None.

    Args:
        error: From pyarrow, or from Spark with the text of such an error.
        root: Root of the lake, for the message.
    """
    found = _REPORTED.search(str(error))
    if found is None:
        return _of_hdfs(str(error), root) or _of_system(str(error), root)
    text, code, status = found[1][:_LONGEST], found[2], found[3]
    if code in _REFUSED or status in ("401", "403"):
        return StorageRefused(
            f"the object store refused the credentials: {text}",
            f"expected credentials that may list, read, write and delete below {root} and the sources; set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the role of the machine, for driver"
            " and executors alike",
        )
    if code in _ABSENT:
        return StorageRefused(
            f"the object store has no such bucket: {text}",
            f"expected an existing bucket; make it, or correct {root}, AWS_ENDPOINT_URL or AWS_REGION",
        )
    return Interrupted(
        f"the object store did not do what it was asked, also when it was asked again: {text}",
        "expected an answer within 20 s, after at most six attempts; tables are old or new, and the next job completes"
        " a commit that had begun; run the same command again when the store answers",
    )


def _of_system(text: str, root: str) -> Message | None:
    found = _OF_SYSTEM.search(text)
    if found is None:
        return None
    return StorageRefused(
        f"the file system refused the access: {found[1][:_LONGEST]}",
        f"expected that the user of this job may list, read, write and delete below {root}, and in the other folders of"
        " its settings; change their owner or mode",
    )


def _of_hdfs(text: str, root: str) -> Message | None:
    found = _OF_HDFS.search(text)
    if found is None or int(found[2]) == errno.ENOENT:
        return None
    said = found[1][:_LONGEST]
    if int(found[2]) in (errno.EACCES, errno.EPERM):
        return StorageRefused(
            f"HDFS refused the access: {said}",
            f"expected that this user may list, read, write and delete below {root}; change its owner or permissions",
        )
    why = "the NameNode is in safe mode" if int(found[2]) == errno.EROFS else "is the NameNode running, and reachable?"
    return Interrupted(
        f"HDFS did not do what it was asked: {said} ({why})",
        "tables are old or new, and the next job completes a commit that had begun; run the same command again when"
        " HDFS answers",
    )
