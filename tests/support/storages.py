"""What every storage of a lake must do alike."""

import pytest

from ids_spark.lake import filesystem
from ids_spark.lake.filesystem import exists, files_in, is_file, names_in, read_bytes, resolve, sizes_in, write_bytes


def check_files(place: str) -> None:
    """Write, list, replace, move and remove files in a new folder."""
    names = [
        "b.parquet",
        "a/c.parquet",
        "a b/d=e%20f/g.parquet",
        "_x.parquet",
        "a/_z/d.parquet",
        ".w/e.parquet",
        "f.csv",
    ]
    for name in names:
        write_bytes(f"{place}/{name}", name.encode())
    assert {name: read_bytes(f"{place}/{name}").decode() for name in names} == {name: name for name in names}
    assert sizes_in(place) == {name: len(name) for name in names}
    visible = ["a b/d=e%20f/g.parquet", "a/c.parquet", "b.parquet"]
    assert files_in(f"{place}/", ".parquet") == [f"{place}/{name}" for name in visible]
    assert [is_file(f"{place}/{name}") for name in ("f.csv", "a", "none")] == [True, False, False]
    assert [exists(f"{place}/{name}") for name in ("f.csv", "a", "none")] == [True, True, False]
    filesystem.replace_bytes(f"{place}/f.csv", b"other")
    fs, root = resolve(place)
    filesystem.move(fs, f"{root}/f.csv", f"{root}/deep/er/f.csv")
    filesystem.move(fs, f"{root}/a", f"{root}/deep/a")
    filesystem.remove(f"{place}/b.parquet")
    filesystem.remove(f"{place}/b.parquet")
    assert read_bytes(f"{place}/deep/er/f.csv") == b"other"
    left = ["deep/er/f.csv", "deep/a/c.parquet", "deep/a/_z/d.parquet", *(n for n in names if n[0] in "_." or " " in n)]
    assert set(sizes_in(place)) == set(left)
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{place}/b.parquet")
    assert not exists(f"{place}/a")
    none = f"{place}/none"
    assert (names_in(none), files_in(none, ""), sizes_in(none)) == ([], [], {})
